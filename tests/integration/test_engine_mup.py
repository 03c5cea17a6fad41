"""The engine gives every parameter its own learning rate when the configuration asks for muP."""

from functools import partial

import pytest
import torch

from models import mup
from models.config import ModelConfig
from models.initialization import initial_values, initialize
from models.transformer import Transformer
from training.engines.base import Engine
from training.engines.fsdp import FsdpEngine
from training.objectives import TensorBatch
from training.objectives.causal_lm import CausalLM
from training.optimizers import make_optimizer
from training.processes import process_group
from training.recipes import make_config

MODEL = {"num_layers": 1, "width": 64, "num_heads": 4, "context": 16, "vocab_size": 67}
MUP = {"mup_base_width": 16, "mup_base_head_width": 16}
RATES = (3e-2, 1e-2)


def test_a_step_is_that_of_torchs_optimizer_with_the_scaled_rates(tmp_path):
    """A rate found on a small model would be taken for all parameters of the large one."""
    config = make_config({"model": {**MODEL, **MUP}, "engine": {"precision": "fp32"}})
    # With a small epsilon, Adam turns the rounding of a gradient that should be zero into a whole step.
    optimizer_config = config.optimizer.model_copy(update={"eps": 1e-2, "clip_norm": 0.0})
    config = config.model_copy(update={"optimizer": optimizer_config})
    tokens = torch.randint(0, 67, (4, 17), generator=torch.Generator().manual_seed(0))
    batch = TensorBatch(tokens[:, :-1], tokens[:, 1:], torch.ones(4, 16))

    model = Transformer(config.model)
    initialize(model, config.model, seed=5)
    scale = partial(mup.learning_rate_scale, config=config.model)
    optimizer = make_optimizer(model.named_parameters(), config.optimizer, scale)
    for rate in RATES:
        (CausalLM().loss(model, batch).total / 64).backward()
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 / 4 if group["lr_scale"] != 1 else 1)
        optimizer.step()
        optimizer.zero_grad()

    with process_group(0, 1, "cpu", tmp_path / "rendezvous", 60) as group:
        engine: Engine = FsdpEngine.prepare(
            lambda: Transformer(config.model),
            partial(initial_values, config=config.model, seed=5),
            config,
            group,
        )
        for rate in RATES:
            engine.micro_batch(CausalLM(), batch, last=True)
            engine.step(rate, 64.0)
        after = {shard.name: shard.local.clone() for shard in engine.state(optimizer=False)}
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(after[f"model/{name}"], parameter.detach(), atol=1e-6, rtol=1e-5, msg=name)
    slow, fast = "blocks.0.mlp.up.weight", "embedding.weight"
    moved = {
        name: (after[f"model/{name}"] - start_of(config.model, name)).abs().max().item()
        for name in (slow, fast)
    }
    assert moved[slow] < moved[fast]


def start_of(config: ModelConfig, name: str) -> torch.Tensor:
    shape = Transformer(config).get_parameter(name).shape
    return torch.from_numpy(initial_values(name, 0, shape.numel(), config, 5)).view(shape)


@pytest.mark.parametrize("changes", [{}, MUP])
def test_state_of_an_optimizer_has_the_same_names_with_and_without(changes, tmp_path):
    """Groups are not of the checkpoint: one written before there were rates could no longer be loaded."""
    config = make_config({"model": {**MODEL, **changes}, "engine": {"precision": "fp32"}})
    with process_group(0, 1, "cpu", tmp_path / "rendezvous", 60) as group:
        engine = FsdpEngine.prepare(
            lambda: Transformer(config.model),
            partial(initial_values, config=config.model, seed=5),
            config,
            group,
        )
        tokens = torch.randint(0, 67, (1, 16))
        engine.micro_batch(CausalLM(), TensorBatch(tokens, tokens, torch.ones(1, 16)), last=True)
        engine.step(1e-3, 16.0)
        names = {shard.name for shard in engine.state()}
    assert names == {
        f"{kind}/{name}{moment}"
        for name, _ in Transformer(config.model).named_parameters()
        for kind, moment in (
            ("model", ""), ("optimizer", "/exp_avg"), ("optimizer", "/exp_avg_sq"), ("optimizer", "/step")
        )
    }  # fmt: skip
