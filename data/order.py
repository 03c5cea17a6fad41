"""Shuffled order without a list: a keyed permutation that answers in constant time.

A generalised Feistel network over Z_a x Z_a with a^2 just above n, and cycle walking to stay
below n (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"). No index is built, so
start-up costs nothing and any rank can ask for any position.
"""

import math
from typing import overload

import numpy as np
from numpy.typing import NDArray

from data.hashing import mix64
from seedbed.randomness import key

ROUNDS = 8


class Permutation:
    """A bijection of 0 .. n-1 chosen by `seed64`; `permutation(i)` for an int or an array of ints."""

    def __init__(self, n: int, seed64: int) -> None:
        if not 1 <= n < 2**62:
            raise ValueError(f"a permutation needs 1 <= n < 2**62, not {n}")
        self.n = n
        self._side = np.uint64(math.isqrt(n - 1) + 1)
        self._round_keys = [np.uint64(key(seed64, "feistel", turn) & (2**64 - 1)) for turn in range(ROUNDS)]

    @overload
    def __call__(self, i: int) -> int: ...
    @overload
    def __call__(self, i: NDArray[np.int64]) -> NDArray[np.int64]: ...
    def __call__(self, i: int | NDArray[np.int64]) -> int | NDArray[np.int64]:
        if isinstance(i, int | np.integer):
            return int(self.many(np.array([i], dtype=np.int64))[0])
        return self.many(i)

    def many(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """The images of `indices`, of the same shape."""
        if indices.size and not (indices.min() >= 0 and indices.max() < self.n):
            raise IndexError(f"an index is outside 0 .. {self.n - 1}")
        images = self._encipher(indices.astype(np.uint64).ravel())
        # The cycle that leaves 0 .. n-1 comes back to it; about 2 in sqrt(n) leave at all.
        while len(outside := np.flatnonzero(images >= np.uint64(self.n))):
            images[outside] = self._encipher(images[outside])
        return images.astype(np.int64).reshape(indices.shape)

    def _encipher(self, x: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = x // self._side, x % self._side
        for round_key in self._round_keys:
            left, right = right, (left + mix64(right + round_key) % self._side) % self._side
        return left * self._side + right
