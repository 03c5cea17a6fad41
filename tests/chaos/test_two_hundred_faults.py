"""Two hundred faults from a seed: each is recovered from or refused, and the weights are those without any.

Half of them happen to processes of a run on two ranks, in exact mode, and to its supervisor; the others to
the files of its checkpoints, on which a rank's own restoring is tried. `test_surroundings.py` has those of
what is around a run. With SEEDBED_CI every kind happens, a fifth as often.
"""

import os
import pickle
import random
import shutil
import signal
import time

import pytest
from faulty_runs import finish, start, state_hash

from training.checkpoint import layout
from training.checkpoint.reader import Checkpoint
from training.metrics import read_events, surviving_rows
from training.processes import StopFlag, process_group
from training.restore import restore
from training.run_directory import RunDirectory
from training.trainer import Trainer

COUNTS = {"kill": 25, "crash": 10, "exception": 15, "terminate": 10, "stop": 5, "supervisor": 10, "save": 25}
FILE_COUNTS = {
    "flipped bit": 40, "truncated": 15, "missing": 15, "zeroed page": 10, "file of another step": 10,
    "forged pickle": 10,
}  # fmt: skip


def restarts(**more):
    plenty = {"restarts__program": 99, "restarts__infrastructure": 99, "restarts__without_progress": 99}
    return {**plenty, "timeouts__heartbeat_s": 3, "checkpoint__every_steps": 2, **more}


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_processes_that_fail_are_replaced(tmp_path, undisturbed, shared, table):
    """One run after another, each with a dozen faults, so that a fault meets what the one before left."""
    draw = random.Random(1)
    kinds = [
        kind for kind in ("kill", "crash", "exception", "terminate") for _ in range(shared(COUNTS[kind]))
    ]
    draw.shuffle(kinds)
    num_runs = shared(COUNTS["stop"])
    for number in range(num_runs):
        # Last, since a stopped rank is woken up to tell its stack, and may train on past the next fault.
        run, own = tmp_path / str(number), [*kinds[number::num_runs], "stop"]
        steps = 2 * len(own) + 4
        faults = [
            # Each in its own attempt: a fault that came again on the same step would be a crash loop.
            {
                "kind": kind,
                "rank": draw.randrange(2),
                "step": 2 * place + 2 + draw.randrange(2),
                "attempt": place,
            }
            for place, kind in enumerate(own)
        ]
        finish(start(run, faults, run__steps=steps, **restarts()), timeout_s=600)
        died = [event for event in read_events(run) if event["kind"] == "worker_died"]
        assert len(died) == len(own)
        assert state_hash(run) == state_hash(undisturbed(steps))
        for kind in own:
            table[kind]["recovered"] += 1


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_a_kill_at_every_moment_of_a_save_changes_nothing(tmp_path, undisturbed, shared, table):
    """At each of them a rank dies; the run goes on with both, or with one alone."""
    moments = [
        {"kind": "save", "rank": rank, "call": call, "number": number, "when": when}
        for rank, call, number in (
            (1, "write_tensors", 1), (0, "write_tensors", 1), (1, "write_json", 1), (0, "write_json", 1),
            (0, "write_atomic", 1), (0, "hash_file", 1), (0, "write_json", 2), (0, "fsync_dir", 1),
        )
        for when in ("before", "after")
    ]  # fmt: skip
    draw = random.Random(2)
    chosen = [*moments, *draw.sample(moments, max(0, shared(COUNTS["save"]) - len(moments)))]
    for first in range(0, len(chosen), 5):
        own = chosen[first : first + 5]
        run, steps = tmp_path / str(first), 2 * len(own) + 4
        faults = [{**fault, "step": 2 * place + 2} for place, fault in enumerate(own)]
        process = start(run, faults, run__steps=steps, **restarts(checkpoint__every_steps=1))
        if first % 2:
            wait_for(run, 6)
            stop_all(process)
            process = start(run, faults, resume=True, engine__num_ranks=1)
        finish(process, timeout_s=600)
        assert state_hash(run) == state_hash(undisturbed(steps))
        table["save"]["recovered"] += len(own)


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_a_supervisor_that_is_killed_is_started_again(tmp_path, undisturbed, shared, table):
    """Its workers end with it, having saved; the same command goes on."""
    draw, steps, run = random.Random(3), 40, tmp_path / "run"
    process = start(run, [], run__steps=steps, **restarts())
    for _ in range(shared(COUNTS["supervisor"])):
        wait_for(run, newest(run) + draw.randrange(1, 4), process)
        if process.poll() is not None:
            break
        stop_all(process)
        process = start(run, [], resume=True)
        table["supervisor"]["recovered"] += 1
    finish(process, timeout_s=300)
    assert state_hash(run) == state_hash(undisturbed(steps))


def newest(run):
    rows = surviving_rows(run) if (run / "metrics.jsonl").exists() else []
    return max((row["step"] for row in rows), default=0)


def wait_for(run, step, process=None):
    deadline = time.monotonic() + 120
    while newest(run) < step and (process is None or process.poll() is None):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def stop_all(process):
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    # Its workers hear of it, save and end.
    deadline = time.monotonic() + 60
    while subprocesses_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)


def subprocesses_of(group):
    """Processes of the session that the run was started in."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == group and fields[0] != "Z":
                found.append(int(entry))
    return found


@pytest.fixture(scope="module")
def sound(undisturbed, tmp_path_factory):
    """A finished run with several steps, to be copied and damaged."""
    run = tmp_path_factory.mktemp("sound") / "run"
    finish(start(run, [], run__steps=8, checkpoint__every_steps=2, checkpoint__keep=4))
    return run


FILES = ("rank-0.safetensors", "rank-1.safetensors", layout.MANIFEST, "config.toml", "tokenizer.json")


class Payload:
    """What a forged pickle would do."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def damage(kind, step, draw, executed):
    """Do it to a random file of the step; its name."""
    name = draw.choice([name for name in FILES if (step / name).exists()])
    path = step / name
    content = bytearray(path.read_bytes())
    if kind == "flipped bit":
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    elif kind == "truncated":
        del content[draw.randrange(len(content)) :]
    elif kind == "zeroed page":
        start = draw.randrange(max(1, len(content) - 64))
        content[start : start + 4096] = bytes(len(content[start : start + 4096]))
    elif kind == "file of another step":
        name = draw.choice(FILES[:2])
        path = step / name
        content = bytearray((step.with_name("step-4") / name).read_bytes())
    elif kind == "forged pickle":
        content = bytearray(pickle.dumps(Payload(executed)))
    path.unlink()
    if kind != "missing":
        path.write_bytes(content)
    return name


@pytest.mark.timeout(600)
def test_damaged_files_are_refused_and_the_step_before_is_used(tmp_path, sound, shared, table, monkeypatch):
    """With a rank's own restoring: nothing is loaded that was not written, nothing is executed."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    draw, run_path, executed = random.Random(4), tmp_path / "run", tmp_path / "executed"
    hashes = {step: Checkpoint.open(layout.step_dir(sound, step)).hash(optimizer=True) for step in (6, 8)}
    faults = [kind for kind, count in FILE_COUNTS.items() for _ in range(shared(count))]
    for kind in faults:
        shutil.rmtree(run_path, ignore_errors=True)
        shutil.copytree(sound, run_path)
        step = layout.step_dir(run_path, 8)
        name = damage(kind, step, draw, executed)
        found = restored(run_path)
        assert (found.step, found.hash(optimizer=True)) == (6, hashes[6]), (kind, name)
        assert not step.exists(), (kind, name)
        table[kind]["refused, the step before used"] += 1
    assert not executed.exists()
    assert restored(copy_of(sound, tmp_path / "intact")).step == 8


def copy_of(run, path):
    shutil.copytree(run, path)
    return path


def restored(run_path):
    """The checkpoint that a rank goes on from; what it holds has been proved to be that."""
    run = RunDirectory(run_path)
    text = run.config_path.read_text().replace("num_ranks = 2", "num_ranks = 1")
    run.config_path.write_text(text)
    with process_group(0, 1, "cpu", run_path / "rendezvous", 60) as group:
        trainer = Trainer(run, group, 1, StopFlag())
        state = restore(trainer)
        trainer.batches.close()
    return Checkpoint.open(layout.step_dir(run_path, state.step))
