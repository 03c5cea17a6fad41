"""The benchmarks of training run from end to end, in their smallest form."""

import json
import sys

import pytest

from tests.conftest import ROOT, run_command


def run(tmp_path, script: str, *arguments: str, timeout_s: float = 180) -> dict:
    command = [sys.executable, "-P", str(ROOT / "benchmarks" / script), *arguments]
    outcome = run_command(command, timeout_s=timeout_s, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})
    assert outcome.code == 0, outcome.stderr
    return json.loads(outcome.stdout)


def test_the_benchmark_of_a_gpu(tmp_path):
    """Time on a rented GPU would go into finding that a name has changed."""
    found = run(tmp_path, "gpu.py", "--device", "cpu", "--tiny", "--eager", "--steps", "2")
    assert found["ceilings"]["copy_gb_per_s"] > 0
    for shape in found["shapes"].values():
        assert shape["two_runs_one_hash"]
        assert 0 < shape["fast"]["mfu_causal"] < shape["fast"]["mfu_full"]
        assert shape["fast"]["loss"][1] < shape["fast"]["loss"][0]


@pytest.mark.long
def test_the_benchmark_of_training(tmp_path):
    """The section that drives a trainer by itself; the others are runs of the command."""
    found = run(tmp_path, "train.py", "--quick", "--only", "loop")
    assert 0 < found["loop"]["outside_share"]["median"] < 1


@pytest.mark.parametrize("section", ["memory", "speed"])
def test_the_benchmark_of_plans(tmp_path, section):
    """Two ranks of each of two small configurations, measured and planned."""
    found = run(tmp_path, "plan.py", "--quick", "--only", section)[section]
    assert len(found["configurations"]) == 2
    for row in found["configurations"].values():
        assert row["error"] > -1


@pytest.mark.long
@pytest.mark.parametrize(
    "section", ["randomwalks", "iteration", "ppo_demo", "overoptimisation", "arithmetic", "reasoning"]
)
def test_the_benchmark_of_rewards(tmp_path, section):
    """A graph's walks for a few steps, one iteration of a small model, and a study of a few iterations."""
    found = run(tmp_path, "rl.py", "--quick", "--only", section, timeout_s=600)[section]
    if section == "randomwalks":
        assert 0 < found["seeds"][0]["after"]["drawn"] <= 1
    elif section == "ppo_demo":
        assert len(found["ptx"]["gold"]) == len(found["before"]["gold"]) == 2
        assert found["ppo"]["gain"][1] <= found["ppo"]["gain"][0] <= found["ppo"]["gain"][2]
    elif section == "arithmetic":
        assert 0 <= found["seeds"][0]["after"] <= 1
    elif section == "reasoning":
        assert list(found["stages"]) == ["cold-start", "rl", "sft", "rl-again"]
        assert all(0 <= share <= 1 for stage in found["stages"].values() for share in stage.values())
    elif section == "overoptimisation":
        assert set(found["conditions"]) == {"single", "worst", "penalised", "healthy"}
        apart = {name: one["by_iteration"]["disagreement"] for name, one in found["conditions"].items()}
        assert apart["single"] is None
        assert min(apart["worst"]) > 0
        assert found["conditions"]["single"]["against_single"]["value"] == 0
        assert found["false_alarms"]["told"] == 0
    else:
        for form in ("fp32", "defaults"):
            assert sum(found[form]["share"].values()) == pytest.approx(1, abs=0.01)
            # Without the other side's environment it is said why there is no ratio.
            assert found[form]["trl_over_seedbed"] or "make peers" in found[form]["not compared"]
