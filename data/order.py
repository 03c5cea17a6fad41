"""Shuffled order without a list: position -> unit (a window, a row of packed documents) in constant time.

`Permutation` is a generalised Feistel network over Z_a x Z_a with a^2 just above n, and cycle walking
to stay below n (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"). `PooledOrder` shuffles
at two levels, so that reading stays near itself however large the corpus is, and `EpochOrder` runs on,
epoch after epoch. No index is built: start-up costs nothing and any rank can ask for any position.
"""

import math
from functools import lru_cache
from typing import overload

import numpy as np
from numpy.typing import NDArray

from data.hashing import mix64
from seedbed.randomness import key, seed64

ROUNDS = 8

UNITS_PER_BLOCK = 256
BLOCKS_PER_POOL = 256

# Positions that are put in order at once.
RUN = 256


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


class PooledOrder:
    """A bijection of 0 .. n-1 for one epoch, that goes through the units pool by pool.

    Consecutive units form blocks. The blocks are permuted, consecutive permuted blocks form pools, and
    the units of a pool are permuted: while a pool lasts, reading touches no more than its blocks,
    wherever in the corpus these are. What is less than two pools is one pool, a plain permutation.
    Whatever does not divide n is exact: the last block may be short, and has a random place of its own;
    the last pool holds up to twice as many blocks.
    """

    def __init__(
        self,
        n: int,
        seed: int,
        epoch: int,
        units_per_block: int = UNITS_PER_BLOCK,
        blocks_per_pool: int = BLOCKS_PER_POOL,
    ) -> None:
        self.n, self._width, self._places_per_pool = n, units_per_block, blocks_per_pool
        self._num_full_blocks, short = divmod(n, units_per_block)
        num_places = self._num_full_blocks + (short > 0)
        self.num_pools = max(1, num_places // blocks_per_pool)
        self._pool = lru_cache(maxsize=4)(lambda pool: self._make_pool(pool, seed, epoch))
        if self.num_pools > 1:
            self._blocks = Permutation(self._num_full_blocks, seed64(seed, "order", epoch, "blocks"))
        # Stretched positions are those that there would be if the short block were as wide as the others.
        self._missing = units_per_block - short if short else 0
        self._short_place = seed64(seed, "order", epoch, "short block") % num_places if short else num_places
        self._short_stop = self._short_place * units_per_block + short

    def many(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The units at `positions` of the epoch, of the same shape."""
        if self.num_pools == 1:
            return self._pool(0).many(positions)
        pools = np.minimum(
            self._stretched(positions) // (self._width * self._places_per_pool), self.num_pools - 1
        )
        shuffled = np.empty_like(positions)
        for pool in np.unique(pools).tolist():
            here = pools == pool
            start = self._pool_start(pool)
            shuffled[here] = start + self._pool(pool).many(positions[here] - start)
        places, within = np.divmod(self._stretched(shuffled), self._width)
        is_short = places == self._short_place
        blocks = self._blocks.many(np.where(is_short, 0, places - (places > self._short_place)))
        return np.where(is_short, self._num_full_blocks, blocks) * self._width + within

    def _stretched(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        return positions + self._missing * (positions >= self._short_stop)

    def _pool_start(self, pool: int) -> int:
        if pool == self.num_pools:
            return self.n
        place = pool * self._places_per_pool
        return place * self._width - self._missing * (place > self._short_place)

    def _make_pool(self, pool: int, seed: int, epoch: int) -> Permutation:
        where = (epoch, pool) if self.num_pools > 1 else (epoch,)
        return Permutation(self._pool_start(pool + 1) - self._pool_start(pool), seed64(seed, "order", *where))


class EpochOrder:
    """The endless order of `num_units` units: each epoch goes through all in an order of its own."""

    def __init__(self, num_units: int, seed: int, shuffle: bool = True) -> None:
        self.num_units, self._shuffle = num_units, shuffle
        self._epoch = lru_cache(maxsize=4)(lambda epoch: PooledOrder(num_units, seed, epoch))
        # Small requests come one after the other, and permuting one position costs as much as 256.
        self._run = lru_cache(maxsize=8)(lambda run: self._make(run * RUN, (run + 1) * RUN))

    def units(self, position: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """[count], [count]: epoch and unit of each of the positions `position` .. `position + count - 1`."""
        if position < 0 or count < 0:
            raise ValueError(f"position and count must not be negative: {position}, {count}")
        stop = position + count
        if count >= RUN:
            return self._make(position, stop)
        runs = [self._run(run) for run in range(position // RUN, (stop - 1) // RUN + 1)] or [self._run(0)]
        here = slice(position % RUN, position % RUN + count)
        epochs, units = (np.concatenate(parts)[here] for parts in zip(*runs, strict=True))
        return epochs, units

    def _make(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        epochs, units = np.divmod(np.arange(start, stop, dtype=np.int64), self.num_units)
        if self._shuffle:
            for epoch in np.unique(epochs).tolist():
                here = epochs == epoch
                units[here] = self._epoch(epoch).many(units[here])
        return epochs, units
