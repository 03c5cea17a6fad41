"""Training in float16: overflowing steps are skipped, the loss scale falls, grows and is restored."""

import json
from functools import partial

import pytest
import torch

from models.initialization import initial_values
from models.transformer import Transformer
from seedbed.errors import TrainingError
from training.engines import ENGINES
from training.engines.loss_scale import FIRST, GROWTH_STEPS, LEAST, LossScale
from training.objectives import TensorBatch
from training.objectives.causal_lm import CausalLM
from training.processes import process_group
from training.recipes import make_config

MODEL = {"num_layers": 1, "width": 24, "num_heads": 3, "context": 8, "vocab_size": 67}


def train(engine, steps: int) -> tuple[list[float], list[float]]:
    """Losses and gradient norms on one batch."""
    tokens = torch.randint(0, 67, (2, 9), generator=torch.Generator().manual_seed(0))
    batch = TensorBatch(tokens[:, :-1], tokens[:, 1:], torch.ones(2, 8))
    losses, norms = [], []
    for _ in range(steps):
        loss, weight = engine.micro_batch(CausalLM(), batch, last=True)
        losses.append((loss / weight).item())
        norms.append(engine.step(1e-2, 16.0))
    return losses, norms


def state_of(engine) -> dict[str, torch.Tensor]:
    return {shard.name: shard.local.clone() for shard in engine.state()}


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("engine_name", ["ddp", "fsdp"])
def test_it_learns_like_float32_and_skips_what_overflows(engine_name, exact, tmp_path):
    """A skipped step leaves weights and moments alone, and halves the scale; a resume has that scale."""
    with process_group(0, 1, "cpu", tmp_path / "rendezvous", 60) as group:

        def prepared(precision: str):
            config = make_config(
                {
                    "model": MODEL,
                    "batch": {"tokens_per_step": 16, "micro_batch_size": 2},
                    "engine": {"name": engine_name, "precision": precision, "exact": exact},
                }
            )
            draw = partial(initial_values, config=config.model, seed=5)
            return ENGINES[engine_name].prepare(lambda: Transformer(config.model), draw, config, group)

        engine = prepared("fp16")
        losses, norms = train(engine, 4)
        expected_losses, expected_norms = train(prepared("fp32"), 4)
        assert losses == pytest.approx(expected_losses, rel=2e-3)
        assert norms == pytest.approx(expected_norms, rel=2e-2)
        before = state_of(engine)
        assert before["optimizer/loss_scale"] == FIRST
        assert before["optimizer/loss_scale_steps"] == 4
        stored = {**before, "optimizer/loss_scale": torch.tensor(2.0**40, dtype=torch.float64)}
        resumed = prepared("fp16")
        resumed.load_state(lambda name, *_: stored[name])
        assert not torch.tensor(train(resumed, 1)[1]).isfinite().any()
        after = state_of(resumed)
        assert resumed.loss_scale == 2.0**39
        assert after["optimizer/loss_scale_steps"] == 0
        same = [name for name in before if "loss_scale" not in name]
        assert all(torch.equal(after[name], before[name]) for name in same)


def test_the_scale_doubles_after_good_steps_and_gives_up_at_its_least():
    """Or small gradients would vanish for good, or a diverged run skip steps until its end."""
    scale = LossScale(100)
    assert scale.factor == FIRST / 128
    for _ in range(GROWTH_STEPS):
        scale.update(finite=True)
    assert scale.scale == 2 * FIRST
    while scale.scale > LEAST:
        scale.update(finite=False)
    with pytest.raises(TrainingError, match="overflow float16"):
        scale.update(finite=False)


def test_a_run_goes_on_over_steps_that_overflow_and_says_which(seedbed_cli, tmp_path):
    """A penalty large enough that its gradients do not fit until the scale has come down."""
    settings = {
        "run.steps": 24, "model.num_layers": 1, "model.width": 16, "model.num_heads": 2, "model.context": 32,
        "batch.micro_batch_size": 2, "batch.tokens_per_step": 64, "engine.precision": "fp16",
        "objective.z_loss": 1e4, "engine.num_ranks": 1, "eval.every_steps": 0, "tracking.mlflow": "false",
    }  # fmt: skip
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    outcome = seedbed_cli("train", "gpt-demo", "--run-dir", "run", *sets)
    assert outcome.code == 0, outcome.stderr
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if row["kind"] == "train"]
    assert steps[0]["skipped"]
    assert steps[0]["grad_norm"] is None
    assert not steps[-1]["skipped"]
    num_skipped = sum(row["skipped"] for row in steps)
    assert steps[-1]["loss_scale"] == FIRST / 2**num_skipped
