"""Faults of what is around a run: its disk, its tracker, its clock, its owner. Its weights stay the same."""

import contextlib
import random
import shutil
import subprocess

import pytest
from faulty_runs import finish, start, state_hash

from tests.mlflow_server import Server, steps_of, the_run, wait_for
from training.metrics import read_events, surviving_rows
from training.tracking import replay

STEPS = 40


def slowly(*more):
    """Faults, with steps slow enough to do something between them."""
    pauses = [{"kind": "sleep", "rank": 0, "step": step, "seconds": 0.1} for step in range(1, STEPS + 1)]
    return [*pauses, *more]


def has_come_to(run, step, process):
    def condition():
        assert process.poll() is None, process.communicate()[0]
        rows = surviving_rows(run) if (run / "metrics.jsonl").exists() else []
        return any(row["step"] >= step for row in rows)

    return condition


def kinds_of(run):
    return [event["kind"] for event in read_events(run)]


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], check=False).returncode:
        pytest.skip("may not mount")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.chaos
@pytest.mark.root
@pytest.mark.timeout(600)
def test_a_disk_that_is_full_for_a_while_costs_checkpoints_alone(small_disk, undisturbed, shared, table):
    draw = random.Random(5)
    for number in range(shared(5)):
        run, filler = small_disk / f"run-{number}", small_disk / "filler"
        process = start(run, slowly(), run__steps=STEPS)
        wait_for(has_come_to(run, draw.randrange(6, 20), process))
        with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        wait_for(lambda run=run: "checkpoint_failed" in kinds_of(run), 20)
        filler.unlink()
        finish(process)
        assert state_hash(run) == state_hash(undisturbed(STEPS))
        steps = [row["step"] for row in surviving_rows(run) if row["kind"] == "train"]
        assert steps == list(range(1, STEPS + 1))
        shutil.rmtree(run)
        table["full disk"]["recovered"] += 1


@pytest.mark.chaos
@pytest.mark.root
@pytest.mark.timeout(600)
def test_a_disk_that_is_read_only_for_a_while_costs_checkpoints_alone(small_disk, undisturbed, shared, table):
    """That of the checkpoints: on that of the records, files are open for writing, and it cannot happen."""
    draw = random.Random(6)
    for number in range(shared(5)):
        run = small_disk / f"run-{number}"
        checkpoints = run / "checkpoints"
        checkpoints.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", checkpoints], check=True)
        try:
            process = start(run, slowly(), run__steps=STEPS)
            wait_for(has_come_to(run, draw.randrange(6, 20), process))
            remount(checkpoints, "ro")
            wait_for(lambda run=run: "checkpoint_failed" in kinds_of(run), 20)
            remount(checkpoints, "rw")
            finish(process)
            assert state_hash(run) == state_hash(undisturbed(STEPS))
        finally:
            subprocess.run(["umount", "-l", checkpoints], check=True)
        failed = next(event for event in read_events(run) if event["kind"] == "checkpoint_failed")
        assert "Read-only file system" in failed["message"]
        table["read-only disk"]["recovered"] += 1


def remount(path, mode):
    def done():
        # Busy while a save is being written.
        command = ["mount", "-o", f"remount,{mode}", path]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    wait_for(done, 20)


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", ["dead", "hanging"])
@pytest.mark.parametrize("moment", ["start", "middle", "end"])
def test_a_tracker_that_fails_costs_nothing_but_its_own_rows_for_a_while(
    tmp_path, undisturbed, table, fault, moment
):
    folder, run = tmp_path / "server", tmp_path / "run"
    folder.mkdir()
    server = Server(folder)
    fail, mend = (server.kill, server.start) if fault == "dead" else (server.hang, server.wake)
    try:
        server.start()
        if moment == "start":
            fail()
        tracked = {"tracking__mlflow": "true", "tracking__uri": server.uri, "tracking__experiment": "tests"}
        process = start(run, slowly(), run__steps=STEPS, **tracked)
        wait_for(has_come_to(run, 15, process))
        if moment == "middle":
            fail()
        wait_for(has_come_to(run, 25, process))
        if moment == "end":
            fail()
        else:
            mend()
        finish(process)
        assert state_hash(run) == state_hash(undisturbed(STEPS))
        if moment == "end":
            mend()
        assert replay(run, server.uri, "tests")
        client, tracked_run = the_run(server.uri)
        assert sorted(steps_of(client, tracked_run, "train/loss")) == list(range(1, STEPS + 1))
    finally:
        server.kill()
    table[f"{fault} tracker, {moment}"]["recovered"] += 1


@pytest.mark.chaos
def test_clocks_that_jump_change_nothing(tmp_path, undisturbed, table):
    """By a day, there and back, on either rank."""
    day, run = 86400, tmp_path / "run"
    jumps = [(0, 6, day), (1, 12, -day), (0, 18, -2 * day), (1, 24, 2 * day)]
    faults = [{"kind": "clock", "rank": r, "step": step, "seconds": seconds} for r, step, seconds in jumps]
    finish(start(run, faults, run__steps=STEPS))
    assert state_hash(run) == state_hash(undisturbed(STEPS))
    rows = [row for row in surviving_rows(run) if row["kind"] == "train"]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert all(0 <= row["goodput"] <= 1 for row in rows)
    assert "hang" not in kinds_of(run)
    table["clock jump"]["without effect"] += len(jumps)


@pytest.mark.chaos
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("kind", "cause"), [("exception", "program"), ("kill", "infrastructure")])
def test_a_crash_loop_ends_and_what_was_saved_is_gone_on_from(tmp_path, undisturbed, table, kind, cause):
    run = tmp_path / "run"
    faults = slowly({"kind": kind, "rank": 1, "step": 8})
    output = finish(start(run, faults, run__steps=STEPS), code=4)
    assert f"{cause}: 3 of " in output
    assert "the last 4 attempt(s) without a new checkpoint" in output or cause == "program"
    finish(start(run, [], resume=True))
    assert state_hash(run) == state_hash(undisturbed(STEPS))
    table[f"crash loop, {kind}"]["ended, and gone on from"] += 1


@pytest.mark.chaos
def test_a_second_run_in_the_same_directory_is_refused(tmp_path, undisturbed, table):
    run = tmp_path / "run"
    process = start(run, slowly(), run__steps=STEPS)
    wait_for(has_come_to(run, 5, process))
    for resume in (False, True):
        output = finish(start(run, [], resume=resume), code=2)
        assert "is in use by another run" in output
        table["second run in one directory"]["refused"] += 1
    finish(process)
    assert state_hash(run) == state_hash(undisturbed(STEPS))
