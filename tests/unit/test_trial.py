"""Trials of a user's recipe: whatever it asks of a long run, a few steps of it are a valid run."""

import pytest

from cluster.micro_batch import largest_that_fits
from cluster.trial import trial_assignments, trial_folder
from cluster.verify_exact import Layout, layout_assignments, verify_exact
from seedbed.errors import UsageError
from training.recipes import load_config

WATCHED = ["eval.patience=3", "eval.min_delta=0.1", "eval.restore_best=true", "checkpoint.keep_every=1"]
PROFILED = ["tracking.profile=10:13", "tracking.layer_norms=5"]


@pytest.mark.parametrize("asked", [WATCHED, PROFILED])
def test_a_trial_leaves_out_what_a_long_run_is_asked_for(asked):
    """A user with patience could not have a micro-batch found, or anything proved."""
    config = load_config("gpt-demo", trial_assignments(asked, 2, {"batch.micro_batch_size": 2}))
    assert (config.run.steps, config.checkpoint.every_steps, config.batch.micro_batch_size) == (2, 2, 2)
    assert (config.eval.every_steps, config.eval.patience, config.checkpoint.keep_every) == (0, 0, 0)
    tracking = config.tracking
    assert (tracking.profile, tracking.layer_norms, tracking.mlflow) == ("", 0, False)


@pytest.mark.parametrize("exact", [True, False])
def test_every_layout_takes_a_recipe_that_offloads(exact):
    """A recipe for GPUs would be refused for another engine's sake."""
    asked = ["engine.offload=parameters", "engine.exact=true", "engine.exact_lanes=2", *WATCHED, *PROFILED]
    config = load_config("gpt-demo", layout_assignments(asked, Layout("ddp", 2, exact)))
    assert (config.engine.offload, config.engine.exact) == ("none", exact)


def test_engines_without_exact_mode_are_refused_at_once():
    """A user would wait for all runs, and then see a KeyError."""
    with pytest.raises(UsageError, match=r"goes without engine\.name = .zero1"):
        verify_exact("gpt-demo", ["engine.name=zero1"])


def test_a_trial_leaves_nothing(tmp_path):
    """A user's disk would fill with weights that no one asked for; or the system's small one."""
    with trial_folder(tmp_path / "a" / "runs") as folder:
        assert folder.parent == tmp_path / "a" / "runs"
        (folder / "weights").touch()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "runs").mkdir()
    with trial_folder(tmp_path / "runs"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="no trial"), trial_folder(tmp_path / "file"):
        pass


@pytest.mark.parametrize(
    ("guess", "limit", "found", "tried"),
    [
        (8, 125, 8, [8]),  # would be 180 for 16
        (4, 200, 16, [4, 8, 16]),  # the plan had guessed too much memory
        (32, 125, 8, [32, 8]),
        (32, 99, 4, [32, 8, 4]),
        (64, 30, 1, [64, 32, 2, 1]),  # 64 runs out of memory
        (32, 15, None, [32, 1]),
    ],
)
def test_the_largest_size_is_searched_from_the_plan_s_guess(guess, limit, found, tried):
    """Half of a GPU would stay idle where the plan asks for too much, or a run would not fit."""
    seen = []

    def measure(size):
        seen.append(size)
        return None if size > 32 else 20 + 10 * size

    assert largest_that_fits([64, 32, 16, 8, 4, 2, 1], guess, limit, measure) == found
    assert seen == tried
