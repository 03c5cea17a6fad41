"""Validation while training: every held-out window once, whatever the sizes."""

import json
import math
from pathlib import Path

import pytest

from data.build import build_dataset
from data.config import DataConfig
from data.shards import Dataset
from seedbed.errors import ConfigError
from training.early_stopping import count, out_of_patience
from training.metrics import surviving_rows
from training.prepare import fork
from training.sections import EvalConfig
from training.state import TrainState


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """Forty short texts, a few of them held out."""
    base = tmp_path_factory.mktemp("texts")
    folder = base / "text"
    folder.mkdir()
    words = ["seed", "bed", "grows", "from", "raw", "text", "to", "model", "with", "one", "command"]
    for number in range(40):
        text = " ".join(
            words[(number * k * k + k) % 11] + str((number * 7919 + k) % 97) for k in range(1, 120)
        )
        (folder / f"{number}.txt").write_text(text)
    return build_dataset(DataConfig(source=str(folder), vocab_size=300, holdout_fraction=0.06), base / "set")


def test_a_holdout_smaller_than_a_micro_batch_is_scored_once_and_in_its_own_bytes(
    seedbed_cli, tmp_path, dataset
):
    """Validation loss would weigh some windows twice, and bits per byte would be of other bytes."""
    holdout = Dataset.open(dataset).split("holdout")
    num_windows = (holdout.num_tokens - 1) // 128
    settings = {
        "data.path": dataset,
        "run.steps": 1,
        "model.num_layers": 1,
        "model.width": 16,
        "model.num_heads": 2,
        "model.context": 128,
        "batch.micro_batch_size": num_windows + 3,
        "batch.tokens_per_step": 2 * 128 * (num_windows + 3),
        "optimizer.lr": 1e-12,
        "eval.num_samples": 1000,
        "eval.prompt": "",
        "tracking.mlflow": "false",
    }
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    outcome = seedbed_cli("train", "gpt-demo", "--run-dir", "run", *sets)
    assert outcome.code == 0, outcome.stderr
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    row = next(row for row in rows if row["kind"] == "eval")
    # An untrained model gives every token about 1/300.
    assert abs(row["val_loss"] - math.log(300)) < 0.05
    scored = holdout.tokens(1, num_windows * 128 + 1)
    lengths = Dataset.open(dataset).tokenizer().byte_lengths()
    expected = row["val_loss"] * len(scored) / math.log(2) / lengths[scored].sum()
    assert abs(row["val_bits_per_byte"] / expected - 1) < 1e-6


@pytest.mark.long
def test_a_run_ends_when_validation_no_longer_improves_and_goes_back_to_its_best(
    seedbed_cli, tmp_path, dataset
):
    """Counted over a resume, with moving averages of weights that can be asked for."""
    settings = {
        "data.path": dataset, "run.steps": 4, "model.num_layers": 1, "model.width": 16, "model.num_heads": 2,
        "model.context": 32, "batch.micro_batch_size": 2, "batch.tokens_per_step": 128, "optimizer.lr": 1e-12,
        "engine.num_ranks": 1, "optimizer.ema_decay": 0.9, "eval.every_steps": 2, "eval.num_samples": 8,
        "eval.patience": 2, "eval.min_delta": 0.01, "checkpoint.every_steps": 2, "tracking.mlflow": "false",
    }  # fmt: skip
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    outcome = seedbed_cli("train", "gpt-demo", "--run-dir", "run", *sets)
    assert outcome.code == 0, outcome.stderr
    with pytest.raises(ConfigError, match=r"optimizer.name = 'muon'"):
        fork(tmp_path / "run", tmp_path / "refused", ["optimizer.name=muon"])
    assert not (tmp_path / "refused").exists()
    # Of its parent's patience, one validation is left: a branch has all of its own.
    branch = ("--fork", "branch", "--set", "run.steps=6", "--set", "eval.patience=1")
    outcome = seedbed_cli("train", "--resume", "run", *branch)
    assert outcome.code == 0, outcome.stderr
    assert (tmp_path / "branch" / "checkpoints" / "step-6").is_dir()
    more = ("--set", "run.steps=50", "--set", "eval.restore_best=true")
    outcome = seedbed_cli("train", "--resume", "run", *more)
    assert outcome.code == 0, outcome.stderr
    assert "stopped early at step 6 of 50" in outcome.stderr
    assert "went back to step 2" in outcome.stderr
    steps = {path.name for path in (tmp_path / "run" / "checkpoints").glob("step-*")}
    assert steps == {"step-2"}
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    scored = [row for row in rows if row["kind"] == "eval"]
    assert [row["step"] for row in scored] == [2, 4, 6]
    assert {row["step"] for row in surviving_rows(tmp_path / "run")} == {1, 2}
    assert all(abs(row["val_ema_loss"] - row["val_loss"]) < 1e-3 for row in scored)
    outcome = seedbed_cli("generate", "run", "--ema", "--max-tokens", "3", "--json")
    assert outcome.code == 0, outcome.stderr
    assert json.loads(outcome.stdout)["step"] == 2


def test_a_loss_that_is_lower_by_too_little_is_stale_and_yet_the_best():
    """`eval.restore_best` would go back to a step that is worse than one that was validated."""
    settings = EvalConfig(patience=2, min_delta=0.5, restore_best=True)
    state, found = TrainState(), []
    for loss in (3.0, 2.9, 2.95, 2.4):
        state.validated = loss
        found.append((count(state, settings), state.num_stale, out_of_patience(state, settings)))
    assert found == [(True, 0, False), (True, 1, False), (False, 2, True), (True, 0, False)]
