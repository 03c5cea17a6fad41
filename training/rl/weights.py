"""The policy's weights for whoever generates: from any engine, in buckets, and proved by a hash."""

import hashlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from models.families import AnyModelConfig, parameter_shapes
from training.engines import Engine
from training.engines.base import Shard

BUCKET_BYTES = 1 << 26
PREFIX = "model/"


@dataclass
class Refreshed:
    """What one refresh took."""

    num_bytes: int
    seconds: float
    hash: str

    @property
    def gb_per_s(self) -> float:
        return self.num_bytes / 1e9 / self.seconds


def whole_weights(engine: Engine, config: AnyModelConfig) -> Iterator[tuple[str, Tensor]]:
    """(canonical name, whole tensor in float32) on every rank, which all have to ask.

    Each element is held by one rank and is zero bits on the others, so that sums of bits, as integers, give
    every rank the very same ones.
    """
    shards: dict[str, list[Shard]] = {}
    for shard in engine.state(optimizer=False):
        if shard.name.startswith(PREFIX):
            shards.setdefault(shard.name.removeprefix(PREFIX), []).append(shard)
    shapes = parameter_shapes(config)
    for names in _buckets(shapes):
        sizes = [math.prod(shapes[name]) for name in names]
        bucket = torch.zeros(sum(sizes), dtype=torch.float32, device=engine.group.device)
        parts = dict(zip(names, bucket.split(sizes), strict=True))
        for name, part in parts.items():
            whole = part.view(shapes[name])
            for shard in shards.get(name, ()):
                box = tuple(
                    slice(begin, begin + size)
                    for begin, size in zip(shard.offsets, shard.local.shape, strict=True)
                )
                whole[box] = shard.local.to(whole.device, torch.float32)
        if engine.group.num_ranks > 1:
            dist.all_reduce(bucket.view(torch.int32))
        for name, part in parts.items():
            yield name, part.view(shapes[name])


def _buckets(shapes: dict[str, tuple[int, ...]]) -> Iterator[list[str]]:
    bucket: list[str] = []
    size = 0
    for name, shape in shapes.items():
        if bucket and size + 4 * math.prod(shape) > BUCKET_BYTES:
            yield bucket
            bucket, size = [], 0
        bucket.append(name)
        size += 4 * math.prod(shape)
    yield bucket


def same_on_all_ranks(engine: Engine, text: str) -> bool:
    """Whether every rank has the same text."""
    value = float(int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big"))
    own = [value if rank == engine.group.rank else 0.0 for rank in range(engine.group.num_ranks)]
    return len(set(engine.sum_over_ranks(own))) == 1


class Clock:
    """Seconds by name, of what it was told begins."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since, self._name = time.perf_counter(), ""

    def begin(self, name: str) -> None:
        """End what was begun before; an empty name begins nothing."""
        now = time.perf_counter()
        if self._name:
            self.seconds[self._name] = self.seconds.get(self._name, 0.0) + now - self._since
        self._since, self._name = now, name
