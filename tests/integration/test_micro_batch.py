"""`seedbed train --micro-batch auto`: the largest micro-batch that fits, found once and recorded."""

import pytest

from cluster.micro_batch import possible_sizes
from seedbed.errors import ConfigError
from training.recipes import load_config
from training.run_directory import RunDirectory

SETTINGS = {
    "model.num_layers": 2, "model.width": 64, "model.num_heads": 2, "model.context": 128,
    "batch.tokens_per_step": 128 * 32, "eval.every_steps": 0, "tracking.mlflow": "false",
    "run.steps": 2, "engine.num_ranks": 1,
}  # fmt: skip
ASSIGNMENTS = [f"{name}={value}" for name, value in SETTINGS.items()]
SETS = [part for assignment in ASSIGNMENTS for part in ("--set", assignment)]


def test_sizes_divide_the_batch_and_leave_every_rank_one():
    """A size would be found that no layout of the run takes."""
    config = load_config("gpt-demo", [*ASSIGNMENTS, "engine.num_ranks=3"])
    assert list(possible_sizes(config)) == [8, 4, 2, 1]
    with pytest.raises(ConfigError, match="more than the 32"):
        list(possible_sizes(load_config("gpt-demo", [*ASSIGNMENTS, "engine.num_ranks=33"])))


def test_flags_that_contradict_it_are_named(seedbed_cli):
    """A number that was given would be passed over."""
    run = ("train", "gpt-demo", *SETS, "--micro-batch")
    assert "--set batch.micro_batch_size=4" in seedbed_cli(*run, "4").stderr
    assert "contradict" in seedbed_cli(*run, "auto", "--set", "batch.micro_batch_size=2").stderr


@pytest.mark.long
def test_what_fits_is_measured_and_kept(tmp_path, seedbed_cli):
    """A run would die for want of memory, or be another run when it is resumed."""
    run = seedbed_cli("train", "gpt-demo", "--run-dir", "run", *SETS, "--micro-batch", "auto")
    assert run.code == 0, run.stderr
    assert "micro-batch of 32: " in run.stderr
    assert RunDirectory(tmp_path / "run").config().batch.micro_batch_size == 32
    again = seedbed_cli("train", "gpt-demo", "--run-dir", "run", *SETS, "--micro-batch", "auto")
    assert (again.code, "micro-batch of 32: " in again.stderr) == (0, False)
