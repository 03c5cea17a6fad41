"""Runs killed, stopped, damaged, resumed and branched: the weights are those of an undisturbed run."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seedbed.errors import UsageError
from training.checkpoint import layout
from training.metrics import read_events, surviving_rows
from training.run_directory import RunDirectory, read_json

SEEDBED = str(Path(sys.executable).with_name("seedbed"))
STEPS = 30
SETTINGS = {
    "run.steps": STEPS,
    "model.num_layers": 2,
    "model.width": 48,
    "model.num_heads": 2,
    "model.context": 64,
    "model.dropout": 0.1,
    "batch.micro_batch_size": 2,
    "batch.tokens_per_step": 640,
    "checkpoint.every_steps": 5,
    "checkpoint.keep": 6,
    "eval.every_steps": 10,
    "eval.num_samples": 4,
    "eval.sample_tokens": 4,
    "tracking.mlflow": "false",
}


def arguments(**changes: object) -> list[str]:
    settings = {**SETTINGS, **{key.replace("__", "."): value for key, value in changes.items()}}
    return [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]


def start(*args: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [SEEDBED, *map(str, args)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == code, output
    return output


def train(run: Path, *more: str | Path, code: int = 0, **changes: object) -> str:
    return finish(start("train", "gpt-demo", "--run-dir", run, *arguments(**changes), *more), code)


def resume(run: Path, *more: str | Path, code: int = 0) -> str:
    return finish(start("train", "--resume", run, *more), code)


def wait_for_step(run: Path, step: int, process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        rows = (run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").exists() else []
        if any(json.loads(row)["step"] >= step for row in rows if row.endswith("}")):
            return
        assert process is None or process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    pytest.fail(f"{run} did not reach step {step}")


def worker_pids(run: Path) -> list[int]:
    return [read_json(path)["pid"] for path in sorted((run / "heartbeats").glob("rank-*.json"))]


def kill_all(run: Path, process: subprocess.Popen[str]) -> None:
    """SIGKILL to the supervisor and to every worker, at once."""
    for pid in [process.pid, *worker_pids(run)]:
        os.kill(pid, signal.SIGKILL)
    process.wait()


def full_hash(path: Path, step: int = STEPS) -> str:
    command = [SEEDBED, "checkpoint", "hash", "--optimizer", "--json", str(path)]
    value = json.loads(subprocess.check_output(command, text=True))
    assert value["step"] == step
    return value["hash"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    train(run)
    return run


@pytest.mark.long
def test_killed_at_three_random_steps_and_resumed_gives_the_same_bits(tmp_path, undisturbed):
    """What a user trained would depend on when the machine failed."""
    run = tmp_path / "run"
    process = start("train", "gpt-demo", "--run-dir", run, *arguments())
    steps = sorted(random.Random(time.time_ns()).sample(range(2, STEPS - 1), 3))
    for step in steps:
        wait_for_step(run, step, process)
        kill_all(run, process)
        process = start("train", "--resume", run)
    finish(process)
    assert full_hash(run) == full_hash(undisturbed), f"killed at steps {steps}"
    chain = [row for row in surviving_rows(run) if row["kind"] == "train"]
    assert [row["step"] for row in chain] == list(range(1, STEPS + 1))
    told = [row["loss"] for row in surviving_rows(undisturbed) if row["kind"] == "train"]
    assert [row["loss"] for row in chain] == told


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_killed_at_ten_random_moments_gives_the_same_bits(tmp_path, undisturbed):
    """A kill while starting, loading, saving or renaming would leave a run that cannot go on."""
    run = tmp_path / "run"
    draw = random.Random(time.time_ns())
    process = start("train", "gpt-demo", "--run-dir", run, *arguments())
    delays = []
    for _ in range(10):
        delays.append(draw.uniform(1.0, 7.0))
        try:
            process.wait(delays[-1])
            break
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        while (run / "run.lock").exists() and _is_locked(run):
            time.sleep(0.05)
        again = (
            ("--resume", run)
            if (run / "config.toml").exists()
            else ("gpt-demo", "--run-dir", run, *arguments())
        )
        process = start("train", *again)
    finish(process)
    assert full_hash(run) == full_hash(undisturbed), f"killed after {delays} s"


def _is_locked(run: Path) -> bool:
    try:
        RunDirectory(run).lock().close()
        return False
    except UsageError:
        return True


def test_a_dead_worker_is_replaced_and_the_run_ends_with_the_same_bits(tmp_path, undisturbed):
    """One lost process would end the run, or change its result."""
    run = tmp_path / "run"
    process = start("train", "gpt-demo", "--run-dir", run, *arguments())
    wait_for_step(run, 12, process)
    os.kill(worker_pids(run)[1], signal.SIGKILL)
    output = finish(process)
    assert "rank-1 was killed by SIGKILL" in output
    assert full_hash(run) == full_hash(undisturbed)
    kinds = [event["kind"] for event in read_events(run)]
    assert kinds.count("restarted") == 1
    assert RunDirectory(run).status()["state"] == "finished"


def test_sigterm_saves_exits_5_and_resumes_to_the_same_bits(tmp_path, undisturbed):
    """A preempted job would lose work, or look like a failed one."""
    run = tmp_path / "run"
    process = start("train", "gpt-demo", "--run-dir", run, *arguments())
    wait_for_step(run, 7, process)
    process.send_signal(signal.SIGTERM)
    output = finish(process, code=5)
    assert "--resume" in output
    stopped_at = layout.list_steps(run)[-1]
    assert stopped_at == max(row["step"] for row in surviving_rows(run))
    assert RunDirectory(run).status()["state"] == "preempted"
    resume(run)
    assert full_hash(run) == full_hash(undisturbed)


def test_workers_end_when_their_supervisor_is_killed(tmp_path):
    """Two sets of workers could train in one directory, or machines stay taken by orphans."""
    run = tmp_path / "run"
    process = start("train", "gpt-demo", "--run-dir", run, *arguments(run__steps=2000))
    wait_for_step(run, 3, process)
    pids = worker_pids(run)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 30
    while any(_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "workers outlived their supervisor"
        time.sleep(0.1)
    assert layout.list_steps(run), "they end with a checkpoint"


def _alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.mark.long
def test_damaged_steps_are_put_aside_one_by_one_until_a_sound_one_is_found(tmp_path, undisturbed):
    """A resume would load garbage, or give up although a good checkpoint exists."""
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    *_, sound, mixed, missing, truncated, flipped = [layout.step_dir(run, s) for s in layout.list_steps(run)]
    shard = "rank-1.safetensors"
    content = bytearray((flipped / shard).read_bytes())
    content[len(content) // 2] ^= 16
    (flipped / shard).write_bytes(content)
    (truncated / shard).write_bytes((truncated / shard).read_bytes()[:-100])
    (missing / shard).unlink()
    shutil.copy(sound / shard, mixed / shard)
    told = finish(start("checkpoint", "verify", run), code=3)
    damaged = [flipped, truncated, missing, mixed]
    assert all(f"{path / shard}" in told for path in damaged)
    assert str(sound) not in told
    output = resume(run)
    for path in damaged:
        assert f"{path.name.replace('-', ' ')} is damaged and was put aside" in output
        assert (layout.checkpoints_dir(run) / f"quarantined-1-{path.name}").exists()
    assert f"resumed from {sound.name.replace('-', ' ')}" in output
    assert full_hash(run) == full_hash(undisturbed)
    # Of a later attempt, and without a word of which.
    newest = layout.step_dir(run, layout.list_steps(run)[-1])
    (newest / layout.MANIFEST).write_bytes((newest / layout.MANIFEST).read_bytes()[:100])
    assert f"{newest.name.replace('-', ' ')} is damaged and was put aside" in resume(run)
    assert full_hash(run) == full_hash(undisturbed)


@pytest.mark.long
def test_when_no_sound_checkpoint_is_left_the_run_does_not_start_over_by_itself(tmp_path, undisturbed):
    """A hundred hours of training would be replaced by initial weights, with exit code 0."""
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    for step in layout.list_steps(run):
        (layout.step_dir(run, step) / "rank-0.safetensors").write_bytes(b"")
    for _ in range(2):
        output = resume(run, code=3)
        assert "no sound checkpoint left" in output
    assert RunDirectory(run).status()["state"] == "failed"


def test_checkpoints_that_have_vanished_are_missed(tmp_path, undisturbed):
    """A disk that is not mounted would make a run begin again, and write over what it has."""
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    shutil.rmtree(layout.checkpoints_dir(run))
    output = resume(run, code=3)
    assert "holds no checkpoint, and the run has saved step" in output
    assert "mount its disk" in output


@pytest.mark.long
def test_going_back_to_a_step_sets_the_later_ones_aside_and_gives_the_same_bits(tmp_path, undisturbed):
    """Later steps would be mixed with new ones, or an earlier step could not be returned to."""
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    back = layout.list_steps(run)[2]
    output = finish(start("train", "--resume", layout.step_dir(run, back)))
    assert f"resumed from step {back}" in output
    assert full_hash(run) == full_hash(undisturbed)
    chain = [row["step"] for row in surviving_rows(run) if row["kind"] == "train"]
    assert chain == list(range(1, STEPS + 1))


@pytest.mark.long
def test_identity_may_not_change_on_resume_but_schedule_and_placement_may(tmp_path, undisturbed):
    """A run would silently become another run; or longer training would need a new one."""
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    output = resume(run, "--set", "optimizer.lr=0.5", code=2)
    assert "optimizer.lr: 0.0025 in the run, 0.5 asked" in output
    assert "--fork" in output
    assert "data.digest" in resume(run, "--set", "data.vocab_size=1000", code=2)
    output = train(run, code=2, run__seed=7)
    assert "run.seed: 0 in the run, 7 now" in output
    file = run / "config.toml"
    sound = file.read_text()
    file.write_text(sound.replace("lr = 0.0025", "lr = 0.005"))
    assert "optimizer.lr: 0.0025 in the run, 0.005 now" in resume(run, code=2)
    file.write_text(sound)
    output = resume(run, "--set", "eval.every_steps=7")
    assert "changed on resume: eval.every_steps" in output
    assert f"already at step {STEPS} of {STEPS}" in output
    resume(run, "--set", f"run.steps={STEPS + 4}", "--set", "engine.num_ranks=1")
    assert layout.list_steps(run)[-1] == STEPS + 4
    changes = [
        event["changes"] for event in read_events(run) if event["kind"] == "resumed" and "changes" in event
    ]
    assert changes[1:] == [{"run.steps": [STEPS, STEPS + 4], "engine.num_ranks": [2, 1]}]


@pytest.mark.long
def test_fork_branches_off_and_init_from_takes_weights_alone(tmp_path, undisturbed):
    """Trying another learning rate would mean starting over, or spoiling the run that one has."""
    branch = tmp_path / "branch"
    before = full_hash(undisturbed)
    output = resume(
        undisturbed, "--fork", branch, "--set", "optimizer.lr=1e-5", "--set", f"run.steps={STEPS + 3}"
    )
    assert f"resumed from step {STEPS}" in output
    record = RunDirectory(branch).record()
    assert record["forked_from"]["step"] == STEPS
    assert record["difference"]["optimizer.lr"] == [0.0025, 1e-5]
    assert full_hash(undisturbed) == before

    fresh = tmp_path / "fresh"
    train(fresh, "--init-from", undisturbed, run__steps=4)
    losses = [
        [row["loss"] for row in surviving_rows(run) if row["kind"] == "train"] for run in (fresh, undisturbed)
    ]
    assert losses[0][0] < losses[1][0] - 0.5, "it begins where the other run's weights are"
    assert losses[0][:1] != losses[1][-1:]

    output = train(tmp_path / "other", "--init-from", undisturbed, code=2, model__width=64)
    assert "does not fit [model]" in output
    output = train(fresh, code=2, run__steps=4)
    assert "init_from.hash" in output, "weights to start from are part of what a run is"


@pytest.mark.long
def test_a_branch_by_its_recipe_is_a_fork_that_the_same_command_goes_on_with(tmp_path, undisturbed):
    """A program of runs could not make its branches again, or go on with one that was killed."""
    changed = {"run__steps": STEPS + 3, "optimizer__lr": 1e-5}
    sets = [
        word for name, value in changed.items() for word in ("--set", f"{name.replace('__', '.')}={value}")
    ]
    resume(undisturbed, "--fork", tmp_path / "fork", *sets)
    train(tmp_path / "branch", "--branch-from", undisturbed, **changed)
    assert full_hash(tmp_path / "branch", STEPS + 3) == full_hash(tmp_path / "fork", STEPS + 3)
    assert RunDirectory(tmp_path / "branch").record()["forked_from"]["step"] == STEPS
    output = train(tmp_path / "branch", "--branch-from", undisturbed, **changed)
    assert f"already at step {STEPS + 3}" in output

    # As a start leaves it that was killed once the checkpoint was there.
    source = undisturbed / "checkpoints" / f"step-{STEPS}"
    shutil.copytree(source, tmp_path / "killed" / "checkpoints" / source.name)
    train(tmp_path / "killed", "--branch-from", undisturbed, **changed)
    assert full_hash(tmp_path / "killed", STEPS + 3) == full_hash(tmp_path / "fork", STEPS + 3)

    # Where it branched off from is part of what it is.
    assert "began as a branch" in train(tmp_path / "branch", code=2, **changed)
    output = train(tmp_path / "no", "--branch-from", undisturbed, code=2)
    assert "nothing is left to train" in output
    output = train(tmp_path / "no", "--branch-from", undisturbed, "--init-from", undisturbed, code=2)
    assert "contradict each other" in output
    output = train(tmp_path / "no", "--branch-from", undisturbed, code=2, model__width=64)
    assert not (tmp_path / "no").exists(), output


def test_two_runs_cannot_share_a_directory(tmp_path):
    """Two trainers would overwrite each other's checkpoints."""
    run = tmp_path / "run"
    first = start("train", "gpt-demo", "--run-dir", run, *arguments(run__steps=2000))
    wait_for_step(run, 2, first)
    assert "in use by another run" in train(run, code=2, run__steps=2000)
    first.send_signal(signal.SIGTERM)
    finish(first, code=5)


@pytest.mark.long
def test_a_crash_loop_ends_after_three_restarts_without_progress(tmp_path):
    """A broken run would hold its machines for ever."""
    run = tmp_path / "run"
    process = start(
        "train", "gpt-demo", "--run-dir", run, *arguments(run__steps=2000, checkpoint__every_steps=1000)
    )
    for attempt in range(4):
        deadline = time.monotonic() + 60
        while sum(e["kind"] == "attempt_started" for e in read_events(run)) <= attempt:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(worker_pids(run)[0], signal.SIGKILL)
    output = finish(process, code=4)
    assert "given up" in output
    assert RunDirectory(run).status()["state"] == "failed"
