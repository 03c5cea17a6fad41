"""One number over a run's whole state, whatever ranks hold it: said when it is saved and when it is loaded.

Each element adds its bits times an odd number that belongs to its tensor's name and its place, modulo 2^64.
So ranks add up their own parts in any cut; an element that changed, or two that changed places, change the
sum. It proves that what was put together again is what was taken apart; the files have hashes of their own.
"""

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np

from training.checkpoint.tensors import raw_bytes
from training.engines.base import Shard

MODULUS = 2**64
CHUNK = 1 << 20


def digests(shards: Iterable[Shard]) -> dict[str, int]:
    """This rank's part of the sum of each tensor: tensor by tensor, as a branch may drop some."""
    return together({shard.name: _of_shard(shard)} for shard in shards)


def together(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sums from those of all ranks."""
    found: dict[str, int] = {}
    for part in parts:
        for name, value in part.items():
            found[name] = (found.get(name, 0) + value) % MODULUS
    return found


def shown(sums: Mapping[str, int]) -> str:
    """16 hexadecimal digits over all tensors."""
    text = ",".join(f"{name}={sums[name]}" for name in sorted(sums))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _of_shard(shard: Shard) -> int:
    local = shard.local.detach().cpu()
    bits = np.frombuffer(raw_bytes(local), dtype=f"<u{local.element_size()}")
    name = int.from_bytes(hashlib.sha256(shard.name.encode()).digest()[:8], "little")
    places = _Places(tuple(local.shape), shard.global_shape, shard.offsets)
    total = np.uint64(0)
    with np.errstate(over="ignore"):
        for start in range(0, bits.size, CHUNK):
            part = bits[start : start + CHUNK].astype(np.uint64)
            weights = np.uint64(name | 1) + np.uint64(2) * places.of(start, start + part.size)
            total += (part * weights).sum(dtype=np.uint64)
    return int(total)


class _Places:
    """Where the elements of a box lie in the flattened tensor."""

    def __init__(self, shape: tuple[int, ...], whole: tuple[int, ...], offsets: tuple[int, ...]) -> None:
        self._shape, self._whole = shape, whole
        strides = (
            np.cumprod([1, *reversed(whole[1:])], dtype=np.int64)[::-1] if whole else np.empty(0, np.int64)
        )
        self._strides = strides
        self._start = int(np.dot(strides, offsets)) if whole else 0
        # Rows that are whole lie one after another.
        self._is_run = shape[1:] == whole[1:]

    def of(self, first: int, last: int) -> np.ndarray:
        """Of the box's elements `first` to `last` - 1, as uint64."""
        own = np.arange(first, last, dtype=np.int64)
        if not self._is_run:
            own = np.dot(self._strides, np.stack(np.unravel_index(own, self._shape)))
        return (own + self._start).astype(np.uint64)
