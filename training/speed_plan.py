"""How long a step takes, by arithmetic: compute, memory and communication, layer by layer. No torch.

Every term is a count divided by a rate of the device's data sheet, times the share of that rate which is
reached (`Efficiency`, one set for all devices, engines and models):

    products       FLOPs of matrix products, those of recomputed ones among them
    attention      FLOPs of fused attention, whose backward computes the scores again: 5 products beside the
                   2 of its forward (Dao 2023, "FlashAttention-2")
    memory         what element-by-element operations read and write, which eager execution does for each of
                   them and compilation for each chain of them
    communication  bytes over the slowest link of a ring and a latency for each of its hops

A step is its compute and memory terms, what of the communication they do not hide, and the update.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from models.families import (
    AnyModelConfig,
    activation_memory,
    block_of,
    count_parameters,
    flops_per_token,
    parameter_shapes,
)
from training.batch_layout import batch_layout
from training.catalogue import Device
from training.config import Config
from training.engine_traits import MAX_ZERO_BUCKET
from training.memory_plan import FLOAT, moments_of_rank


@dataclass(frozen=True)
class Efficiency:
    """Shares of a data sheet's rates that training reaches."""

    products: float = 0.7
    """Matrix products, of the peak FLOP/s."""
    attention: float = 0.25
    """Fused attention, of the peak FLOP/s: 0.34 is the best that FlashAttention-2 reports on an H100."""
    memory: float = 0.5
    """Element-by-element operations, of the memory's bandwidth; launches and ragged ends are in it."""
    links: float = 0.8
    """Collectives, of a link's bandwidth."""
    overlap: float = 0.6
    """Of communication that could run beside compute: the share that costs nothing."""


EFFICIENCY = Efficiency()
LINK_HOP_S, NETWORK_HOP_S = 3.4e-6, 14e-6
"""Latency of one hop of a ring within a machine and between two (NCCL, src/graph/tuning.cc: `hwLat`, ring,
simple protocol)."""
FORWARD_PASSES, BACKWARD_PASSES = 2.5, 3.5
"""Times that a value which autograd keeps goes through memory: an operation reads one or two and writes one;
its backward reads a gradient and what was kept, writes a gradient, and where paths join adds two."""
DDP_BUCKET_BYTES = 25 * 2**20
"""Of gradients that DistributedDataParallel shares at a time."""


class Collective(NamedTuple):
    """What ranks exchange in one micro-batch, or in one step."""

    num_bytes: float
    """Of the whole tensors."""
    calls: int
    ranks: int
    per_node: int
    """Of these ranks, those on one machine."""
    is_sum: bool = False
    """An all-reduce; otherwise an all-gather or a reduce-scatter, which is half of one."""

    def seconds(self, device: Device, links: float) -> float:
        """Along a ring for halves, along a tree for sums, as NCCL models them."""
        if self.ranks == 1 or not self.num_bytes:
            return 0.0
        nodes = -(-self.ranks // self.per_node)
        rate = device.link_bytes_per_s
        if nodes > 1:
            # A ring enters and leaves a machine once for each of its adapters.
            rate = min(rate, device.network_bytes_per_s * self.per_node)
        volume = self.num_bytes * (2 if self.is_sum else 1) * (self.ranks - 1) / self.ranks
        if self.is_sum:
            within = min(self.ranks, self.per_node) - 1
            hops_s = 2 * (within * LINK_HOP_S + math.ceil(math.log2(nodes)) * NETWORK_HOP_S)
        else:
            hops_s = (self.ranks - nodes) * LINK_HOP_S + (nodes - 1) * NETWORK_HOP_S
        return volume / (rate * links) + self.calls * hops_s


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimizer step, and of its parts over all micro-batches of a rank."""

    products_s: float
    attention_s: float
    memory_s: float
    communication_s: float
    """All of it, hidden or not."""
    exposed_s: float
    """What of it the step waits for."""
    update_s: float
    """The optimizer."""
    num_layers: int
    turns: int

    @property
    def compute_s(self) -> float:
        """Products and attention."""
        return self.products_s + self.attention_s

    @property
    def total_s(self) -> float:
        """The step."""
        return self.compute_s + self.memory_s + self.exposed_s + self.update_s

    def record(self) -> dict[str, Any]:
        """For `plan.json`; `layer` is one layer's mean share of one micro-batch, the head's part included."""
        share = 1 / (self.num_layers * self.turns)
        return {
            "total_s": self.total_s,
            "compute_s": self.compute_s,
            "memory_s": self.memory_s,
            "communication_s": self.communication_s,
            "exposed_communication_s": self.exposed_s,
            "update_s": self.update_s,
            "layer": {
                "products_s": self.products_s * share,
                "attention_s": self.attention_s * share,
                "memory_s": self.memory_s * share,
                "communication_s": self.communication_s * share,
            },
        }


def step_time(config: Config, device: Device, per_node: int, efficiency: Efficiency = EFFICIENCY) -> StepTime:
    """Of `config` on `engine.num_ranks` devices, `per_node` of them in a machine."""
    layout = batch_layout(config)
    sizes = _sizes(config.model)
    products, attention = _flops(config)
    peak = device.peak_flops(config.engine.precision)
    products_s = products / (peak * efficiency.products)
    attention_s = attention / (peak * efficiency.attention)
    each, last, after = _collectives(config, sizes, per_node)
    # What is gathered or shared is copied between tensors and buffers.
    moved = 2 * (sum(one.num_bytes for one in each) + sum(one.num_bytes for one in last) / layout.turns)
    memory_rate = device.memory_bytes_per_s * efficiency.memory
    memory_s = (_elementwise_bytes(config, sizes) + moved) / memory_rate
    passing_s = products_s + attention_s + memory_s
    each_s, last_s, after_s = (
        sum(one.seconds(device, efficiency.links) for one in group) for group in (each, last, after)
    )
    turns = layout.turns
    exposed_s = (turns - 1) * _exposed(each_s, passing_s, efficiency.overlap) + after_s
    exposed_s += _exposed(each_s + last_s, passing_s, efficiency.overlap)
    return StepTime(
        products_s * turns,
        attention_s * turns,
        memory_s * turns,
        each_s * turns + last_s + after_s,
        exposed_s,
        _update_s(config, device, efficiency),
        sizes.num_layers,
        turns,
    )


def _exposed(communication_s: float, beside_s: float, overlap: float) -> float:
    """Seconds that communication adds to what runs beside it."""
    hidden = overlap * min(communication_s, beside_s)
    return communication_s - hidden


class _Sizes(NamedTuple):
    whole: int
    """Bytes of all parameters."""
    num_blocks: int
    num_matrices: int
    num_layers: int
    head: int
    """Numbers of the matrix that makes logits."""


@lru_cache(maxsize=32)
def _sizes(model: AnyModelConfig) -> _Sizes:
    shapes = parameter_shapes(model)
    return _Sizes(
        FLOAT * count_parameters(model).total,
        len({block_of(name) for name in shapes} - {""}),
        sum(len(shape) > 1 for shape in shapes.values()),
        model.num_layers + getattr(model, "decoder_layers", 0),
        model.vocab_size * model.width,
    )


def _recomputed(config: Config) -> float:
    """The share of a block's products that is computed again."""
    shares = {"full": 1.0, "budget": 1 - config.engine.memory_budget}
    return shares.get(config.engine.checkpointing, 0.0)


def _flops(config: Config) -> tuple[float, float]:
    """(of products, of attention) that one micro-batch takes on its device, forward and backward."""
    model, context = config.model, config.model.context
    flops, twice = flops_per_token(model), flops_per_token(model, 2 * context)
    # Only attention grows with the context.
    products = 2 * flops.full - twice.full
    attention = flops.causal - products
    again = _recomputed(config)
    in_blocks = max(0.0, products - 6 * _sizes(model).head)
    tokens = config.batch.micro_batch_size * context
    forward = attention / 3
    return tokens * (products + again * in_blocks / 3), tokens * forward * (1 + 2.5 + again)


def _elementwise_bytes(config: Config, sizes: _Sizes) -> float:
    """What one micro-batch moves beside matrix products and attention."""
    engine, batch = config.engine, config.batch.micro_batch_size
    value = 4 if engine.precision == "fp32" else 2
    # Within a compiled block, only what goes into and comes out of products is written to memory.
    kept = _kept(config.model, batch, value, "selective" if engine.compile else "none")
    again = _recomputed(config) if engine.checkpointing == "budget" else engine.checkpointing != "none"
    blocks = kept.blocks * (FORWARD_PASSES * (1 + again) + BACKWARD_PASSES)
    head = kept.head * FORWARD_PASSES
    if config.objective.num_chunks > 1:
        # Each part adds to the gradient of the whole head.
        head += config.objective.num_chunks * 3 * FLOAT * sizes.head
    # Weights are cast for a forward, and gradients added.
    weights = sizes.whole / FLOAT * ((FLOAT + value if value < FLOAT else 0) + 3 * FLOAT)
    return blocks + head + weights


@lru_cache(maxsize=256)
def _kept(model: AnyModelConfig, batch: int, value: int, policy: str) -> Any:
    return activation_memory(model, batch, bytes_per_value=value, policy=policy)


def _update_s(config: Config, device: Device, efficiency: Efficiency) -> float:
    """Norm, clipping and update read and write weights, gradients and moments of a rank's share."""
    traits = config.engine.traits
    ranks = config.engine.num_ranks // config.engine.replicas
    shards = ranks if "optimizer" in traits.cuts else 1
    numbers = count_parameters(config.model).total / shards
    moved = FLOAT * (6 * numbers + 2 * moments_of_rank(config, shards, ranks))
    if config.engine.offload == "none":
        return moved / (device.memory_bytes_per_s * efficiency.memory)
    # In the host's memory; gradients go there and weights come back.
    return (moved + 2 * FLOAT * numbers) / (device.host_bytes_per_s * efficiency.links)


def _collectives(
    config: Config, sizes: _Sizes, per_node: int
) -> tuple[list[Collective], list[Collective], list[Collective]]:
    """(of each micro-batch, beside the last one alone, after the backward) by engine."""
    engine, whole = config.engine, sizes.whole
    ranks = engine.num_ranks // engine.replicas
    on_node = max(1, min(ranks, per_node))
    groups = sizes.num_blocks + 1
    buckets = -(-whole // (FLOAT * MAX_ZERO_BUCKET if engine.traits.is_zero else DDP_BUCKET_BYTES))

    def half(calls: int) -> Collective:
        return Collective(whole, calls, ranks, on_node)

    if engine.name == "ddp":
        return [], [Collective(whole, buckets, ranks, on_node, is_sum=True)], []
    if engine.name == "zero1":
        return [], [half(buckets)], [half(buckets)]
    if engine.name == "zero2":
        return [half(buckets)], [], [half(buckets)]
    if engine.name == "zero3":
        return [half(sizes.num_matrices)] * 2 + [half(buckets)], [], []
    shared = [half(groups)]
    if engine.replicas > 1:
        # As many groups as a sharded model has ranks, side by side.
        beside = max(1, per_node // ranks)
        shared.append(Collective(whole / ranks, groups, engine.replicas, beside, is_sum=True))
    gathers = 2 if engine.reshard_after_forward else 1
    if engine.exact:
        return [half(groups)] * gathers + shared, [], []
    return [half(groups)] * gathers, shared, []
