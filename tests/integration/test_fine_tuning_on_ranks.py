"""Fine-tuning, rewards and preferences on real ranks: any engine has the curve of one process."""

import pytest

from tests.conftest import SEEDBED, run_command
from tests.integration.test_fine_tuning import data, losses, pretrained, recipe

__all__ = ["data", "pretrained"]
LAYOUTS = [("ddp", 1), ("ddp", 2), ("fsdp", 2), ("zero3", 2)]


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("objective", "examples", "parts"),
    [
        ("sft", "sft", {}),
        ("reward", "pairs", {"model": 'head = "reward"'}),
        ("dpo", "pairs", {}),
    ],
)
def test_every_engine_learns_as_one_process_does(objective, examples, parts, data, pretrained, tmp_path):
    """Examples of unequal lengths and weights, on ranks that get unequal shares of both."""
    path = recipe(tmp_path, data[examples], objective, **parts)
    curves = {}
    for engine, num_ranks in LAYOUTS:
        run = tmp_path / f"{engine}-{num_ranks}"
        # The engines' own bound is for this rate.
        sets = [f"engine.name={engine}", f"engine.num_ranks={num_ranks}", "optimizer.lr=1e-3"]
        command = [str(SEEDBED), "train", path, "--run-dir", str(run), "--init-from", str(pretrained)]
        command += [part for one in sets for part in ("--set", one)]
        outcome = run_command(command, timeout_s=200, cwd=tmp_path)
        assert outcome.code == 0, outcome.stderr
        curves[run.name] = losses(run)
    expected = curves.pop("ddp-1")
    assert len(expected) == 8
    assert max(expected) - min(expected) > 1e-3
    for name, found in curves.items():
        assert found == pytest.approx(expected, abs=1e-5), name
