"""The hash of what a step reads: one number that proves two runs had the same data in the same order.

The hash of a sample is over all that a model sees of it. That of a step is the sum, modulo 2^64, of its
samples' hashes, each mixed with the sample's place in the step: so ranks and micro-batches add up their
own parts, and however a step is divided among them, the sum is the same. It tells changed, missing and
exchanged samples from an intact step; it is not made to resist an adversary.

Shapes: B samples.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.hashing import mix64

# One type each for whole numbers, truth values and weights, so that the hash does not hang on a batch's own.
_HASHED_AS = {"i": "<u4", "u": "<u4", "b": "<u4", "f": "<f4"}


def sample_digests(batch: Any) -> NDArray[np.uint64]:
    """[B]: the first 8 bytes of the SHA-256 over all fields of each sample.

    A batch is a dataclass of arrays [B, ...]. Whole numbers enter as 32 bits, which every token id fits.
    """
    values = [np.asarray(getattr(batch, field.name)) for field in fields(batch)]
    columns = [np.ascontiguousarray(value, dtype=_HASHED_AS[value.dtype.kind]) for value in values]
    digests = b"".join(
        hashlib.sha256(b"".join(column[row].tobytes() for column in columns)).digest()[:8]
        for row in range(len(batch))
    )
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def step_digest(digests: NDArray[np.uint64], first: int) -> int:
    """The part of a step's hash that the samples `first`, `first` + 1 ... of the step add to it.

    `digests` [B] are those of `sample_digests`. Add the parts with `add_digests`.
    """
    places = np.arange(first, first + len(digests), dtype=np.uint64)
    return int(mix64(digests + mix64(places)).sum(dtype=np.uint64))


def add_digests(parts: Iterable[int]) -> int:
    """The hash of a step from its parts, in any order."""
    return sum(parts) % 2**64


def show_digest(digest: int) -> str:
    """16 hex digits."""
    return f"{digest:016x}"


def as_floats(digest: int) -> list[float]:
    """Four 16-bit parts, whose float64 sums over up to 2^37 ranks are exact."""
    return [float(digest >> shift & 0xFFFF) for shift in (0, 16, 32, 48)]


def from_floats(parts: Iterable[float]) -> int:
    """The hash of a step from its ranks' `as_floats`, summed part by part."""
    return sum(int(part) << shift for part, shift in zip(parts, (0, 16, 32, 48), strict=True)) % 2**64
