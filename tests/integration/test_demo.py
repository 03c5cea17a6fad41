"""`seedbed demo` at a small size: what a newcomer sees first."""

import json

import pytest

from tests.integration.test_evaluate import save_checkpoint
from training.checkpoint.models import load_model


@pytest.mark.long
def test_the_demonstration_heals_itself_scores_and_reports(seedbed_cli, tmp_path):
    """The first thing that a newcomer types would fail."""
    settings = {
        "run.steps": 60,
        "model.num_layers": 1,
        "model.width": 64,
        "model.num_heads": 2,
        "model.context": 64,
        "batch.micro_batch_size": 4,
        "batch.tokens_per_step": 512,
        "checkpoint.every_steps": 10,
        "eval.every_steps": 30,
    }
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    outcome = seedbed_cli("demo", "--out", "demo", *sets, "--json", timeout_s=280)
    assert outcome.code == 0, outcome.stderr
    result = json.loads(outcome.stdout)
    assert "SIGKILL" in result["killed"]
    assert result["restarts"] == 1
    names = [row["name"] for row in result["table"]]
    assert {"this GPT", "gzip -9", "xz -9e", "xz -9e, primed"} < set(names)
    assert any("gram" in name for name in names)
    assert all(0.5 < row["bits_per_byte"] < 8 for row in result["table"])
    assert verdict(seedbed_cli, result["run"], untrained(tmp_path, result["run"])) == "better"
    assert verdict(seedbed_cli, result["run"], result["run"]) == "tied"
    page = (tmp_path / result["report"]).read_text()
    assert "SIGKILL" in page
    assert "gzip" in page


def untrained(folder, run):
    """The model of a run as it began."""
    loaded = load_model(folder / run)
    save_checkpoint(folder / "untrained", loaded.dataset_path, 1, loaded.config)
    return "untrained"


def verdict(seedbed_cli, run, other):
    outcome = seedbed_cli("eval", run, "--compare", other, "--json")
    assert outcome.code == 0, outcome.stderr
    return json.loads(outcome.stdout)["comparisons"]["bits-per-byte"]["verdict"]
