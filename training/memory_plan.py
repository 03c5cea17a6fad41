"""Memory of a step by arithmetic: what each rank holds at its peak, by part. Does not import torch."""

import math
from collections import Counter
from functools import partial

from models.accounting import ActivationMemory
from models.families import activation_memory, block_of, count_parameters, is_hidden_matrix, parameter_shapes
from training.batch_layout import batch_layout
from training.config import Config
from training.sections import OptimizerConfig

FLOAT = 4
"""Bytes of a weight, a gradient and a moment."""


def memory_by_part(config: Config) -> dict[str, int]:
    """Bytes per device at the peak of a step, by part; what is offloaded to the host is not among them.

    The backward of a block comes when logits are gone: only what it takes beyond them adds to the peak. A
    memory budget is taken as a share of the way from full checkpointing to none.
    """
    traits = config.engine.traits
    ranks = config.engine.num_ranks // config.engine.replicas
    shards = {part: ranks if part in traits.cuts else 1 for part in ("weights", "gradients", "optimizer")}
    whole = FLOAT * count_parameters(config.model).total
    activations, kept = _activations(config)
    copies = whole // shards["optimizer"] if traits.is_zero else 0
    parts = {
        "weights": whole // shards["weights"],
        "gradients": whole // shards["gradients"],
        "optimizer": FLOAT * _moments_of_rank(config, shards["optimizer"], ranks) + copies,
        "exact_sums": _partial_sums(config, whole),
        "activations": kept,
        "block_backward": max(0, activations.recomputed + activations.in_flight - activations.head),
        "logits": activations.head,
        "communication": _gathered(config, shards["weights"], whole),
    }
    offloaded = {"none": (), "optimizer": ("optimizer",), "parameters": ("weights", "gradients", "optimizer")}
    parts |= dict.fromkeys(offloaded[config.engine.offload], 0)
    parts["gradients"] += _unshared_gradients(config, shards["gradients"], whole)
    passing = sum(parts[name] for name in ("activations", "block_backward", "logits"))
    parts["communication"] += max(0, _brought_together(config, ranks) - passing)
    return {**parts, "total": sum(parts.values())}


def moments(config: Config) -> int:
    """Numbers that the optimizer keeps about all parameters, and their moving averages."""
    return _moments_of_rank(config, 1, 1)


def _moments_of_rank(config: Config, num_shards: int, num_owners: int) -> int:
    """As `moments`, of one rank: its share of what is cut, and the state of the tensors that it owns."""
    optimizer, shared, owned = config.optimizer, 0, 0
    for name, shape in parameter_shapes(config.model).items():
        shared += math.prod(shape) if optimizer.ema_decay else 0
        kept = _moments_of(optimizer, name, shape)
        if optimizer.needs_whole(name, len(shape)):
            owned += kept
        else:
            shared += kept
    return shared // num_shards + owned // num_owners


def _brought_together(config: Config, num_ranks: int) -> int:
    """Bytes with which an update of whole tensors begins: a rank's own weights and gradients whole, and what
    it sends and gets. That is after the backward."""
    if num_ranks == 1:
        return 0
    numbers = sum(
        math.prod(shape)
        for name, shape in parameter_shapes(config.model).items()
        if config.optimizer.needs_whole(name, len(shape))
    )
    # Whole copies are sent as they are.
    return FLOAT * numbers // num_ranks * (4 if "weights" in config.engine.traits.cuts else 1)


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


def _gathered(config: Config, num_shards: int, whole: int) -> int:
    """Bytes of parameters that are gathered for a forward: two blocks, or all that stay for the backward."""
    if num_shards == 1:
        return 0
    if config.engine.traits.gathers and not config.engine.reshard_after_forward:
        return whole
    return 2 * _largest_block_bytes(config)


def _unshared_gradients(config: Config, num_shards: int, whole: int) -> int:
    """Bytes of gradients beside a rank's own, until they are shared: of two blocks, or, where micro-batches
    accumulate first, of all."""
    if num_shards == 1:
        return 0
    layout = batch_layout(config)
    turns = layout.micro_batches_per_leaf if config.engine.exact else layout.turns
    accumulates = turns > 1 and not config.engine.traits.is_zero
    return whole if accumulates else 2 * _largest_block_bytes(config)


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
