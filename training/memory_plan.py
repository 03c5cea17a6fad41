"""Memory of a step by arithmetic: what each rank holds at its peak, by part. Does not import torch."""

import math
from collections import Counter
from functools import partial
from typing import NamedTuple

from models.accounting import ActivationMemory
from models.families import activation_memory, block_of, count_parameters, is_hidden_matrix, parameter_shapes
from training.batch_layout import batch_layout
from training.config import Config
from training.sections import OptimizerConfig

FLOAT = 4
"""Bytes of a weight, a gradient and a moment."""


class Spread(NamedTuple):
    """Over how many ranks each kind of state is cut."""

    weights: int
    gradients: int
    optimizer: int


def memory_by_part(config: Config) -> dict[str, int]:
    """Bytes per device at the peak of a step, by part; what is offloaded to the host is not among them.

    What is recomputed of one block comes when logits are gone: only what it takes beyond them adds to the
    peak. A memory budget is taken as a share of the way from full checkpointing to none.
    """
    spread = spread_of(config)
    whole = FLOAT * count_parameters(config.model).total
    activations, kept = _activations(config)
    gathered = _gathered(config, spread, whole)
    # ZeRO's optimizer updates a copy of its part of the weights.
    copies = 1 if config.engine.name.startswith("zero") else 0
    parts = {
        "weights": whole // spread.weights,
        "gradients": whole // spread.gradients + _whole_gradients(config, spread, whole, gathered),
        "optimizer": FLOAT * moments(config) // spread.optimizer + copies * whole // spread.optimizer,
        "exact_sums": _partial_sums(config, whole),
        "activations": kept,
        "recomputation": max(0, activations.recomputed - activations.head),
        "logits": activations.head,
        "communication": gathered,
    }
    offloaded = {"none": (), "optimizer": ("optimizer",), "parameters": ("weights", "optimizer")}
    parts |= dict.fromkeys(offloaded[config.engine.offload], 0)
    return {**parts, "total": sum(parts.values())}


def spread_of(config: Config) -> Spread:
    """What the engine cuts, and into how many parts."""
    ranks = config.engine.num_ranks // config.engine.replicas
    return {
        "ddp": Spread(1, 1, 1),
        "fsdp": Spread(ranks, ranks, ranks),
        "zero1": Spread(1, 1, ranks),
        "zero2": Spread(1, ranks, ranks),
        "zero3": Spread(ranks, ranks, ranks),
    }[config.engine.name]


def moments(config: Config) -> int:
    """Numbers that the optimizer keeps about all parameters, and their moving averages."""
    return sum(
        _moments_of(config.optimizer, name, shape) + (math.prod(shape) if config.optimizer.ema_decay else 0)
        for name, shape in parameter_shapes(config.model).items()
    )


def _moments_of(optimizer: OptimizerConfig, name: str, shape: tuple[int, ...]) -> int:
    size = math.prod(shape)
    if optimizer.name == "adafactor" and len(shape) > 1:
        return size // shape[-1] + size // shape[-2]
    if optimizer.name == "muon" and is_hidden_matrix(name, len(shape)):
        return size
    momentum = 1 if optimizer.momentum else 0
    return size * {
        "amsgrad": 3,
        "sgd": momentum,
        "rmsprop": 1 + momentum,
        "adagrad": 1,
        "adafactor": 1,
        "lion": 1,
    }.get(optimizer.name, 2)


def _activations(config: Config) -> tuple[ActivationMemory, int]:
    """(what one micro-batch makes, bytes of it that blocks keep for the backward)."""
    engine = config.engine
    memory = partial(
        activation_memory,
        config.model,
        config.batch.micro_batch_size,
        bytes_per_value=4 if engine.precision == "fp32" else 2,
        num_chunks=config.objective.num_chunks,
    )
    is_budget = engine.checkpointing == "budget"
    made = memory(policy="full" if is_budget else engine.checkpointing)
    kept = made.blocks
    if is_budget:
        kept += round(engine.memory_budget * (memory(policy="none").blocks - kept))
    return made, kept


def _gathered(config: Config, spread: Spread, whole: int) -> int:
    """Bytes of parameters that are gathered for a forward: two blocks, or all that stay for the backward."""
    if spread.weights == 1:
        return 0
    if config.engine.name == "fsdp" and not config.engine.reshard_after_forward:
        return whole
    return 2 * _largest_block_bytes(config)


def _whole_gradients(config: Config, spread: Spread, whole: int, gathered: int) -> int:
    """Bytes of gradients beside a rank's own: until they are shared."""
    if spread.gradients == 1:
        return 0
    if config.engine.name == "fsdp" and not config.engine.exact:
        # Micro-batches accumulate without synchronisation.
        return whole if batch_layout(config).turns > 1 else gathered
    return gathered or 2 * _largest_block_bytes(config)


def _partial_sums(config: Config, whole: int) -> int:
    """Bytes of the binary counter of exact mode: a level for each bit of the leaves before the last."""
    if not config.engine.exact:
        return 0
    num_levels = max(1, (batch_layout(config).num_leaves - 1).bit_length())
    return num_levels * whole // config.engine.num_ranks


def _largest_block_bytes(config: Config) -> int:
    sizes: Counter[str] = Counter()
    for name, shape in parameter_shapes(config.model).items():
        sizes[block_of(name)] += math.prod(shape)
    return FLOAT * max(sizes.values())
