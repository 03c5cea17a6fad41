"""Memory of a step by arithmetic: what each rank holds at its peak, by part. Does not import torch."""

import math
from collections import Counter
from functools import lru_cache, partial
from typing import NamedTuple

from models.accounting import ActivationMemory
from models.config import ModelConfig
from models.families import (
    AnyModelConfig,
    activation_memory,
    block_of,
    count_parameters,
    is_hidden_matrix,
    parameter_shapes,
)
from models.sizes import bytes_of_weights
from training.batch_layout import batch_layout
from training.config import Config
from training.engine_traits import MAX_ZERO_BUCKET
from training.objective_settings import BY_SAMPLE
from training.rl.settings import ALGORITHMS
from training.sections import OptimizerConfig
from training.trainable import trained_names

FLOAT = 4
"""Bytes of a weight, a gradient and a moment."""


GLOO_BYTES, DEEPSPEED_BYTES = 25 * 2**20, 50 * 2**20
"""What libraries keep in a process on a CPU from its first step on: threads, sockets, code that is loaded
when it is needed. Measured on two ranks, the same at all sizes; a GPU's allocator knows nothing of it."""
MAX_LIVE = 10**9
"""Parameters that DeepSpeed's stage 3 leaves gathered (`stage3_max_live_parameters`, its default)."""
Parts = dict[str, int]


def memory_by_part(config: Config, *, saves: bool = True) -> Parts:
    """Bytes per device at the peak of a step, by part; what is offloaded to the host is not among them.

    What a save copies to the host's memory is among them where that is the device's own, unless the run
    `saves` nothing. Each part is as large as it becomes in a step; `not_at_once`, which is negative, is what
    of their sum never exists at one moment.
    """
    parts = _memory_by_part(config, saves)
    if not config.rl.critic_workers:
        return parts
    # A worker that has the critic alone is planned as one that learns from text: its head is smaller.
    engine = config.engine.model_copy(update={"num_ranks": config.rl.critic_workers, "replicas": 1})
    objective = config.objective.model_copy(update={"name": "causal_lm"})
    critic = config.model_copy(update={"engine": engine, "objective": objective})
    return max(parts, _memory_by_part(critic, saves), key=lambda one: one["total"])


def _memory_by_part(config: Config, saves: bool) -> Parts:
    always = _always(config, saves)
    learning = _learning(config) / _whole(config.model) / FLOAT
    # What is frozen has no gradients; of ddp, all that is shared is of gradients too.
    shrunken = {"gradients", "communication"} if config.engine.name == "ddp" else {"gradients"}
    moments = [
        {name: round(learning * size) if name in shrunken else size for name, size in each.items()}
        for each in _moments_of_step(config)
    ]
    names = dict.fromkeys([name for moment in moments for name in moment])
    largest = {name: max(moment.get(name, 0) for moment in moments) for name in names}
    for name in {"none": (), "optimizer": (), "parameters": ("gradients",)}[config.engine.offload]:
        largest[name] = 0
        moments = [{**moment, name: 0} for moment in moments]
    at_once = max(sum(moment.values()) for moment in moments)
    parts = {**always, **largest, "not_at_once": at_once - sum(largest.values())}
    return {**parts, "total": sum(parts.values())}


def _always(config: Config, saves: bool) -> Parts:
    """What a rank holds from the first step to the last."""
    engine, traits = config.engine, config.engine.traits
    ranks = engine.num_ranks // engine.replicas
    whole = FLOAT * _whole(config.model)
    shards = {part: ranks if part in traits.cuts else 1 for part in ("weights", "optimizer")}
    copies = whole // shards["optimizer"] if traits.is_zero else 0
    is_cpu = engine.device == "cpu"
    parts = {
        "weights": _weights(config.model) // shards["weights"],
        "optimizer": FLOAT * moments_of_rank(config, shards["optimizer"], ranks) + copies,
        "exact_sums": _partial_sums(config, whole),
        "libraries": is_cpu * (GLOO_BYTES + traits.is_zero * DEEPSPEED_BYTES),
        "checkpoint_copy": checkpoint_bytes_of_rank(config) if saves and is_cpu else 0,
    }
    if beside := _beside_policy(config, parts["weights"] + parts["optimizer"]):
        parts["beside_policy"] = beside
    offloaded = {"none": (), "optimizer": ("optimizer",), "parameters": ("weights", "optimizer")}
    return parts | dict.fromkeys(offloaded[engine.offload], 0)


def _beside_policy(config: Config, learner: int) -> int:
    """Bytes of the other models of a policy that learns from rewards: generator, reference, and a critic,
    which is a `learner` as the policy is and has gradients too, unless they have workers of their own. Reward
    models are not among them, whose sizes their files know."""
    algorithm = ALGORITHMS.get(config.objective.name)
    if algorithm is None:
        return 0
    whole = FLOAT * _whole(config.model)
    # In fp32 on a CPU its matrices are there a second time, packed.
    copies = 2 if config.engine.device == "cpu" else 1
    generator = whole * copies if config.engine.precision == "fp32" else whole // 2
    shards = config.engine.num_ranks if "gradients" in config.engine.traits.cuts else 1
    critic = 0 if config.rl.critic_workers else algorithm.has_critic * (learner + whole // shards)
    return generator + (0 if config.rl.scoring_workers else whole) + critic


def _moments_of_step(config: Config) -> list[Parts]:
    """What comes and goes, at the moments of a step that may be its peak.

    They are: the loss, when activations and logits are alive; the backward of the first block, when logits
    are gone; the end of the backward, when activations are; the update. A memory budget is taken as a share
    of the way from full checkpointing to none.
    """
    made, kept = _activations(config)
    sizes = _shared_sizes(config)
    passing = [
        {"activations": kept, "logits": made.head},
        {"activations": kept, "block_backward": made.recomputed + made.in_flight},
        {},
    ]
    moments = [
        {"activations": 0, "block_backward": 0, "logits": 0, **own, **shared}
        for own, shared in zip(passing, _SHARED[sizes.kind](sizes), strict=True)
    ]
    update = {
        "gradients": sizes.whole // sizes.gradient_shards,
        "communication": _brought_together(config, sizes.ranks),
    }
    return [*moments, update]


class _Shared(NamedTuple):
    """Bytes that decide what an engine holds of gradients and of gathered parameters."""

    kind: str
    ranks: int
    gradient_shards: int
    whole: int
    root: int
    """Of parameters outside the blocks, which FSDP gathers and shares together."""
    block: int
    """Of the largest block."""
    table: int
    """Of the embedding."""
    is_tied: bool
    accumulates: bool
    """Micro-batches add to whole gradients before ranks share them."""
    reshards: bool
    bucket: int
    """Of DeepSpeed's buffer of gradients."""

    @property
    def table_gradients(self) -> int:
        """What autograd holds of a tied embedding when it ends, beside the gradient that it leaves: what the
        head gave, what the embedding gave, and their sum; of one that is not tied, its own."""
        return self.table * (3 if self.is_tied else 1)


def _ddp(size: _Shared) -> list[Parts]:
    """Buckets of all gradients stay; what autograd makes is copied into them. Micro-batches that are not yet
    shared add up beside them."""
    held = {"gradients": size.whole, "communication": 0}
    beside = size.table_gradients if size.ranks > 1 else 0
    if size.ranks > 1 and size.accumulates:
        beside += max(size.whole - size.table, size.table)
    return [held, held, {**held, "communication": beside}]


def _fsdp(size: _Shared) -> list[Parts]:
    """The parameters outside the blocks stay gathered until the backward ends, and their gradients until
    then are whole; blocks come and go with a buffer each."""
    summed = size.whole if size.accumulates else 0
    gathered = size.root if size.reshards else size.whole
    own = (size.whole - size.root) // size.ranks
    root = max(size.root + (size.table_gradients - size.table) * size.is_tied, 2 * size.root)
    return [
        {"gradients": summed, "communication": gathered + size.block},
        {"gradients": summed, "communication": gathered + (1 + size.reshards) * size.block},
        {
            "gradients": own + root + (size.root if size.accumulates else 0),
            "communication": size.root + size.block,
        },
    ]


def _zero1(size: _Shared) -> list[Parts]:
    """Gradients are whole when the backward ends. Then they pass through a bucket, out of which a rank's part
    is copied, and made flat."""
    own = size.whole // size.ranks
    beside = max(
        size.table_gradients - size.table * (not size.accumulates),
        min(size.bucket, own),
        size.bucket + 2 * own - size.whole,
    )
    return [
        {"gradients": size.whole * size.accumulates, "communication": 0},
        {"gradients": size.whole * size.accumulates, "communication": size.bucket},
        {"gradients": size.whole, "communication": beside},
    ]


def _zero2(size: _Shared) -> list[Parts]:
    """Gradients pass through a bucket while the backward runs; a rank's part is copied out of it, and made
    flat at the end."""
    own = size.whole // size.ranks
    summed = own if size.accumulates else 0
    # The embedding's come last; by then a rank may have all of its part, unless nothing was shared yet.
    waiting = min(size.bucket, size.whole - size.table)
    copied = own if waiting == size.bucket else summed
    last = waiting + size.table_gradients + copied - own
    return [
        {"gradients": summed, "communication": 0},
        {"gradients": summed, "communication": size.bucket},
        {"gradients": own, "communication": max(last, size.bucket + own)},
    ]


def _zero3(size: _Shared) -> list[Parts]:
    """As stage 2, with parameters that stay gathered, and a second buffer to share gradients from."""
    gathered, own = min(size.whole, FLOAT * MAX_LIVE), size.whole // size.ranks
    summed = own if size.accumulates else 0
    return [
        {"gradients": summed, "communication": gathered},
        {"gradients": summed, "communication": gathered + size.bucket},
        {"gradients": own, "communication": gathered + 2 * size.bucket + own},
    ]


def _alone(size: _Shared) -> list[Parts]:
    """One rank: nothing is gathered or shared."""
    return [{"gradients": size.whole, "communication": 0}] * 3


_SHARED = {"ddp": _ddp, "fsdp": _fsdp, "zero1": _zero1, "zero2": _zero2, "zero3": _zero3, "alone": _alone}


def _shared_sizes(config: Config) -> _Shared:
    engine = config.engine
    ranks = engine.num_ranks // engine.replicas
    layout = batch_layout(config)
    turns = layout.micro_batches_per_leaf if engine.exact else layout.turns
    whole = FLOAT * _whole(config.model)
    root, block, table, is_tied = _groups(config.model)
    return _Shared(
        kind="alone" if ranks == 1 and engine.name != "ddp" else engine.name,
        ranks=ranks,
        gradient_shards=ranks if "gradients" in engine.traits.cuts else 1,
        whole=whole,
        root=root,
        block=block,
        table=table,
        is_tied=is_tied,
        accumulates=turns > 1,
        reshards=engine.reshard_after_forward,
        bucket=min(whole, FLOAT * MAX_ZERO_BUCKET),
    )


def checkpoint_bytes_of_rank(config: Config) -> int:
    """Bytes that one rank writes of a checkpoint, at most: weights, moments and averages that it exposes."""
    ranks = config.engine.num_ranks // config.engine.replicas
    traits = config.engine.traits
    weights = FLOAT * _whole(config.model) // (ranks if "optimizer" in traits.cuts else 1)
    return weights + FLOAT * moments_of_rank(config, ranks if "optimizer" in traits.cuts else 1, ranks)


def moments(config: Config) -> int:
    """Numbers that the optimizer keeps about all parameters, and their moving averages."""
    return moments_of_rank(config, 1, 1)


def _learning(config: Config) -> int:
    """Bytes of the parameters that learn."""
    names = trained_names(config.model, config.optimizer.trained)
    shapes = parameter_shapes(config.model)
    return FLOAT * sum(math.prod(shapes[name]) for name in names)


def sequences_per_sample(config: Config) -> int:
    """Two where answers are compared, or text is learned beside them; of rankings, whose number of answers
    the data know, as if of pairs."""
    compares = config.objective.name in BY_SAMPLE or getattr(config.model, "head", "") == "reward"
    return 2 if compares or config.rl.ptx else 1


def moments_of_rank(config: Config, num_shards: int, num_owners: int) -> int:
    """As `moments`, of one rank: its share of what is cut, and the state of the tensors that it owns."""
    shared, owned = _moments(config.model, config.optimizer)
    return shared // num_shards + owned // num_owners


@lru_cache(maxsize=32)
def _moments(model: AnyModelConfig, optimizer: OptimizerConfig) -> tuple[int, int]:
    """Numbers of (moments of what is cut and averages, state of tensors that have an owner)."""
    shared = owned = 0
    learning = trained_names(model, optimizer.trained)
    for name, shape in parameter_shapes(model).items():
        shared += math.prod(shape) if optimizer.ema_decay else 0
        if name not in learning:
            continue
        kept = _moments_of(optimizer, name, shape)
        if optimizer.needs_whole(name, len(shape)):
            owned += kept
        else:
            shared += kept
    return shared, owned


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
        config.batch.micro_batch_size * sequences_per_sample(config),
        bytes_per_value=4 if engine.precision == "fp32" else 2,
        num_chunks=config.objective.num_chunks,
    )
    is_budget = engine.checkpointing == "budget"
    made = memory(policy="full" if is_budget else engine.checkpointing)
    kept = made.blocks
    if is_budget:
        kept += round(engine.memory_budget * (memory(policy="none").blocks - kept))
    return made, kept


def _partial_sums(config: Config, whole: int) -> int:
    """Bytes of the binary counter of exact mode: a level for each bit of the leaves before the last."""
    if not config.engine.exact:
        return 0
    num_levels = max(1, (batch_layout(config).num_leaves - 1).bit_length())
    return num_levels * whole // config.engine.num_ranks


@lru_cache(maxsize=32)
def _weights(model: AnyModelConfig) -> int:
    """Bytes of a whole model in memory."""
    return bytes_of_weights(model) if isinstance(model, ModelConfig) else FLOAT * _whole(model)


def _whole(model: AnyModelConfig) -> int:
    """Numbers of all parameters."""
    return count_parameters(model).total


@lru_cache(maxsize=32)
def _groups(model: AnyModelConfig) -> tuple[int, int, int, bool]:
    """(bytes outside the blocks, of the largest block, of the embedding, whether that is the head too)."""
    sizes: Counter[str] = Counter()
    tables = []
    for name, shape in parameter_shapes(model).items():
        sizes[block_of(name)] += math.prod(shape)
        if not block_of(name) and len(shape) == 2 and shape[0] == model.vocab_size:
            tables.append(math.prod(shape))
    root = sizes.pop("", 0)
    table = max(tables, default=0)
    return FLOAT * root, FLOAT * max(sizes.values()), FLOAT * table, len(tables) == 1
