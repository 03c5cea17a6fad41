"""Every optimizer through the engines: state that is saved and loaded goes on as if nothing had happened."""

from functools import partial

import pytest
import torch

from models.initialization import initial_values, initialize
from models.transformer import Transformer
from training.config import Config
from training.engines import ENGINES, Group
from training.engines.torch_engine import TorchEngine
from training.objectives import TensorBatch
from training.objectives.causal_lm import CausalLM
from training.processes import process_group
from training.recipes import make_config

MODEL = {"num_layers": 1, "width": 24, "num_heads": 3, "context": 8, "vocab_size": 67}
OPTIMIZERS = (
    "adamw", "adam", "amsgrad", "sgd", "rmsprop", "adagrad", "adadelta", "rprop",
    "muon", "adafactor", "lion", "lamb", "adabound",
)  # fmt: skip


def batch_of(step: int) -> TensorBatch:
    tokens = torch.randint(0, 67, (2, 9), generator=torch.Generator().manual_seed(step))
    return TensorBatch(tokens[:, :-1], tokens[:, 1:], torch.ones(2, 8))


def prepared(config: Config, group: Group) -> TorchEngine:
    return ENGINES[config.engine.name].prepare(
        lambda: Transformer(config.model),
        partial(initial_values, config=config.model, seed=5),
        config,
        group,
    )


def train(engine, steps: range) -> None:
    for step in steps:
        engine.micro_batch(CausalLM(), batch_of(step), last=True)
        engine.step(1e-2, 16.0)


def state_of(engine) -> dict[str, torch.Tensor]:
    return {shard.name: shard.local.clone() for shard in engine.state()}


@pytest.mark.parametrize(
    ("name", "engine_name", "exact"),
    [(name, engine_name, name != "adamw") for name in OPTIMIZERS for engine_name in ("ddp", "fsdp")],
)
def test_state_comes_back(name, engine_name, exact, tmp_path):
    """A moment that is not saved would be zero after a resume, and the curve another."""
    momentum = {"momentum": 0.9} if name in ("sgd", "rmsprop") else {}
    config = make_config(
        {
            "model": MODEL,
            "batch": {"tokens_per_step": 16, "micro_batch_size": 2},
            "optimizer": {"name": name, **momentum},
            "schedule": {"name": "constant", "warmup_share": 0.0},
            "engine": {"name": engine_name, "precision": "fp32", "exact": exact},
        }
    )
    with process_group(0, 1, "cpu", tmp_path / "rendezvous", 60) as group:
        engine = prepared(config, group)
        train(engine, range(3))
        saved = state_of(engine)
        train(engine, range(3, 5))
        expected = state_of(engine)
        resumed = prepared(config, group)
        train(resumed, range(7, 8))
        resumed.load_state(lambda tensor, *_: saved[tensor])
        train(resumed, range(3, 5))
        found = state_of(resumed)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[tensor], expected[tensor]) for tensor in expected)


@pytest.mark.parametrize("engine_name", ["ddp", "fsdp"])
def test_averages_of_weights_are_kept_swapped_in_and_restored(engine_name, tmp_path):
    """By their formula, from the initial weights on; and scoring them leaves the weights as they were."""
    config = make_config(
        {
            "model": MODEL,
            "batch": {"tokens_per_step": 16, "micro_batch_size": 2},
            "optimizer": {"ema_decay": 0.75},
            "engine": {"name": engine_name, "precision": "fp32"},
        }
    )
    with process_group(0, 1, "cpu", tmp_path / "rendezvous", 60) as group:
        engine = prepared(config, group)
        name = "blocks.0.mlp.up.weight"
        expected = state_of(engine)[f"model/{name}"]
        for step in range(3):
            train(engine, range(step, step + 1))
            expected = 0.75 * expected + 0.25 * state_of(engine)[f"model/{name}"]
        before = state_of(engine)
        torch.testing.assert_close(before[f"ema/{name}"], expected, rtol=0, atol=1e-7)
        own = engine.evaluate(CausalLM(), batch_of(0))["loss"].total
        with engine.averaged():
            assert torch.equal(state_of(engine)[f"model/{name}"], before[f"ema/{name}"])
            assert engine.evaluate(CausalLM(), batch_of(0))["loss"].total != own
        after = state_of(engine)
        assert all(torch.equal(after[tensor], before[tensor]) for tensor in before)
        engine.load_state(lambda tensor, *_: before[tensor], optimizer=False)
        # A run that begins with another's weights averages from there.
        assert torch.equal(state_of(engine)[f"ema/{name}"], before[f"model/{name}"])


@pytest.mark.parametrize("engine_name", ["ddp", "fsdp"])
def test_penalties_and_clipping_are_what_they_are_called(engine_name, tmp_path):
    """By plain gradient descent: w - lr (clamp(g) + l2 w + l1 sign w), on matrices alone."""
    settings = {"name": "sgd", "weight_decay": 0.0, "clip_norm": 0.0}
    penalties = {"l1": 0.01, "l2": 0.02, "clip_value": 1e-3}
    config = make_config(
        {
            "model": MODEL,
            "batch": {"tokens_per_step": 16, "micro_batch_size": 2},
            "optimizer": {**settings, **penalties},
            "engine": {"name": engine_name, "precision": "fp32"},
        }
    )
    model = Transformer(config.model)
    initialize(model, config.model, seed=5)
    (CausalLM().loss(model, batch_of(0)).total / 16).backward()
    with process_group(0, 1, "cpu", tmp_path / "rendezvous", 60) as group:
        engine = prepared(config, group)
        train(engine, range(1))
        found = state_of(engine)
    for name, parameter in model.named_parameters():
        weights, gradient = parameter.detach(), parameter.grad.clamp(-1e-3, 1e-3)
        if weights.ndim > 1:
            gradient = gradient + 0.02 * weights + 0.01 * weights.sign()
        torch.testing.assert_close(found[f"model/{name}"], weights - 1e-2 * gradient, rtol=0, atol=1e-7)
