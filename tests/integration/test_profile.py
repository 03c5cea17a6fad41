"""`seedbed train --profile`: where a step's time goes, written into the run."""

import contextlib
import json

import pytest
import torch
from torch.profiler import record_function

from seedbed.errors import Preempted, TrainingError
from training.profile import Profiler
from training.recipes import load_config
from training.recorder import Recorder
from training.run_directory import RunDirectory

SMALL = {
    "model.num_layers": 1, "model.width": 32, "model.num_heads": 2, "model.context": 16,
    "batch.micro_batch_size": 2, "batch.tokens_per_step": 64, "run.steps": 4, "eval.every_steps": 0,
    "tracking.mlflow": "false", "engine.num_ranks": 1,
}  # fmt: skip


def test_the_time_of_chosen_steps_is_written_down(tmp_path, seedbed_cli):
    """A user would not know what to make faster; or would wait for steps that do not come again."""
    sets = [part for name, value in SMALL.items() for part in ("--set", f"{name}={value}")]
    refused = seedbed_cli("train", "gpt-demo", "--run-dir", "run", *sets, "--profile", "3:2")
    assert (refused.code, "FIRST <= LAST" in refused.stderr) == (2, True)
    run = seedbed_cli("train", "gpt-demo", "--run-dir", "run", *sets, "--profile", "2:3")
    assert run.code == 0, run.stderr
    table = tmp_path / "run" / "profile" / "steps-2-3.txt"
    assert "profile of steps 2 to 3: run/profile/steps-2-3.txt" in run.stderr
    phases = {line.split()[0]: line.split()[1:] for line in table.read_text().splitlines()[1:7]}
    # Two steps of two micro-batches.
    assert {name: int(values[0]) for name, values in phases.items()} == {
        "step": 2, "data": 2, "forward": 4, "backward": 4, "ranks": 2, "optimizer": 2,
    }  # fmt: skip
    assert 50 < sum(float(values[2].rstrip("%")) for values in phases.values()) - 100 <= 100.5
    assert "aten::" in table.read_text()
    trace = json.loads(table.with_suffix(".trace.json").read_text())
    assert any(event.get("name") == "seedbed.backward" for event in trace["traceEvents"])
    late = seedbed_cli("train", "--resume", "run", "--profile", "4:6", "--set", "run.steps=6")
    assert (late.code, "trained up to step 4 already" in late.stderr) == (2, True)


def test_the_share_of_communicating_is_told(tmp_path, seedbed_cli):
    """Who waits for the network would look for it in the arithmetic."""
    settings = SMALL | {"engine.num_ranks": 2}
    sets = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    run = seedbed_cli("train", "gpt-demo", "--run-dir", "run", *sets, "--profile", "2:3")
    assert run.code == 0, run.stderr
    lines = (tmp_path / "run" / "profile" / "steps-2-3.txt").read_text().splitlines()
    (line,) = (line.split() for line in lines if line.startswith("exchanges"))
    assert int(line[1]) >= 2
    assert 0 < float(line[3].rstrip("%")) <= 100.5


@pytest.mark.parametrize(
    ("end", "written"),
    [(None, True), (Preempted("stopped"), True), (TrainingError("not finite"), False)],
)
def test_a_run_that_ends_among_the_chosen_steps_leaves_what_there_is(tmp_path, end, written):
    """A user's patience, or the run's, would cost the profile without a word."""
    recorder = Recorder(RunDirectory(tmp_path), load_config("gpt-demo"), rank=0, attempt=0)
    ended = pytest.raises(type(end)) if end else contextlib.nullcontext()
    with ended, Profiler("2:9", recorder, torch.device("cpu")) as profiler:
        for step in (1, 2, 3):
            profiler.before(step)
            with record_function("seedbed.step"):
                torch.ones(2).add_(1)
            profiler.after(step)
        if end:
            raise end
    names = {path.name for path in tmp_path.glob("profile/*")}
    assert names == ({"steps-2-3.txt", "steps-2-3.trace.json"} if written else set())
    assert ("profile of steps 2 to 3" in "".join(p.read_text() for p in tmp_path.glob("*.jsonl"))) == written
