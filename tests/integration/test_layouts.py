"""Layouts of 8 to 128 ranks, on one: a process group that moves no data, in which everything else is real.

What one rank of such a layout plans, shards, steps and would save; the numbers that other ranks would send
are not there.
"""

import math
import multiprocessing
from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from models.families import build, initial_values, parameter_shapes
from training.batch_layout import batch_layout
from training.engines import ENGINES, Group
from training.engines.torch_engine import local_part
from training.objectives import TensorBatch
from training.objectives.causal_lm import CausalLM
from training.plan import memory_by_part
from training.recipes import make_config

MODEL = {"num_layers": 2, "width": 48, "num_heads": 3, "context": 8, "vocab_size": 257}
LAYOUTS = [
    (8, {"name": "fsdp"}),
    (24, {"name": "fsdp", "reshard_after_forward": False}),
    (128, {"name": "fsdp"}),
    (64, {"name": "fsdp", "replicas": 8}),
    (128, {"name": "fsdp", "replicas": 32, "reshard_after_forward": False}),
    # More ranks than some parameters have rows.
    (128, {"name": "fsdp", "exact": True}),
    (128, {"name": "ddp"}),
    (128, {"name": "ddp", "exact": True, "exact_lanes": 128}),
    (16, {"name": "fsdp", "checkpointing": "full"}),
    (16, {"name": "ddp", "checkpointing": "selective"}),
]


def join(rank, num_ranks):
    """Make this process one rank of many, which are not there."""
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=num_ranks)
    return Group(rank, num_ranks, torch.device("cpu"))


@pytest.fixture
def fake_group():
    yield join
    dist.destroy_process_group()


def configured(num_ranks, engine_settings):
    """Two micro-batches for each rank."""
    return make_config(
        {
            "model": MODEL,
            "batch": {"tokens_per_step": 2 * num_ranks * 2 * MODEL["context"], "micro_batch_size": 2},
            "engine": {"num_ranks": num_ranks, "device": "cpu", "precision": "fp32", **engine_settings},
        }
    )


def prepared(config, group):
    return ENGINES[config.engine.name].prepare(
        lambda: build(config.model), partial(initial_values, config=config.model, seed=0), config, group
    )


def accumulate(engine, turns):
    """A rank's micro-batches of a step."""
    for turn in range(turns):
        tokens = torch.randint(0, 257, (2, 9), generator=torch.Generator().manual_seed(turn))
        batch = TensorBatch(tokens[:, :-1], tokens[:, 1:], torch.ones(2, 8))
        loss, weight = engine.micro_batch(CausalLM(), batch, last=turn == turns - 1)
        assert loss.shape == ()
        assert weight == 16


@pytest.mark.parametrize(("num_ranks", "engine_settings"), LAYOUTS)
def test_a_layout_is_planned_sharded_and_stepped(num_ranks, engine_settings, fake_group):
    """A mistake that shows only with many ranks would be found on a rented cluster."""
    config = configured(num_ranks, engine_settings)
    layout, parts = batch_layout(config), memory_by_part(config)
    engine = prepared(config, fake_group(num_ranks // 2, num_ranks))
    assert layout.turns == 2
    computed = {layout.micro_batch(other, turn) for other in range(num_ranks) for turn in range(2)}
    assert computed == set(range(2 * num_ranks))
    accumulate(engine, layout.turns)
    assert math.isfinite(engine.step(1e-3, 16.0 * num_ranks))
    parameters = [parameter for _, parameter in engine.model.named_parameters()]
    held = sum(local_part(parameter)[0].nbytes for parameter in parameters)
    # Rows are not cut: of each parameter a rank may hold up to one more than its share, or less.
    slack = sum(parameter[0].nbytes for parameter in parameters) if config.engine.name == "fsdp" else 0
    assert abs(held - parts["weights"]) <= slack
    stored = {shard.name for shard in engine.state() if shard.local.numel()}
    # It is in no first replica, and not the first rank.
    assert bool(stored) == (config.engine.name == "fsdp" and config.engine.replicas == 1)


ZERO_LAYOUTS = [
    (8, {"name": "zero1"}),
    (128, {"name": "zero1", "checkpointing": "selective"}),
    (64, {"name": "zero2"}),
    (128, {"name": "zero3"}),
    (24, {"name": "zero3", "checkpointing": "full"}),
]


@pytest.mark.parametrize(("num_ranks", "engine_settings"), ZERO_LAYOUTS)
def test_a_layout_of_deepspeeds_is_sharded_and_stepped(num_ranks, engine_settings):
    """In a process of its own: DeepSpeed keeps what it knows of the ranks for good."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        norm, held, planned = pool.apply(deepspeed_step, (num_ranks, engine_settings))
    assert math.isfinite(norm)
    # Each tensor, or each run of them, is padded to a multiple of the ranks: two moments of a number each.
    assert planned <= held <= planned + 2 * 4 * len(parameter_shapes(configured(8, {}).model))


def deepspeed_step(num_ranks, engine_settings):
    """(gradient norm, bytes of optimizer state that this rank would store, what is planned)."""
    config = configured(num_ranks, engine_settings)
    # Rank 0: what DeepSpeed takes over from it would not arrive at another.
    engine = prepared(config, join(0, num_ranks))
    accumulate(engine, batch_layout(config).turns)
    norm = engine.step(1e-3, 16.0 * num_ranks)
    stored = sum(shard.local.nbytes for shard in engine.state() if shard.name.startswith("optimizer/"))
    return norm, stored, memory_by_part(config)["optimizer"] * 2 // 3
