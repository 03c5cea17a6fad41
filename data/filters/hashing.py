"""Sets of 64-bit hashes, for kernels that ask "seen before?".

Two strings are taken for the same when their hashes are: among a million distinct strings of one
document the chance of a mistake is about 3e-8.
"""

import numpy as np
from numpy.typing import NDArray

from data.filters.compiled import kernel

# Odd constants for multiplication modulo 2^64: the golden ratio, and two of splitmix64's.
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
BASE = np.uint64(0xBF58476D1CE4E5B9)
MIX = np.uint64(0x94D049BB133111EB)


@kernel
def new_table(count: int) -> NDArray[np.uint64]:
    """Empty slots (0) for `count` keys, which fill at most half of them."""
    slots = 8
    while slots < 2 * count:
        slots *= 2
    return np.zeros(slots, dtype=np.uint64)


@kernel
def find_slot(keys: NDArray[np.uint64], key: np.uint64) -> int:
    """The slot that holds `key`, or the empty one where it belongs. `key` must not be 0."""
    mask = len(keys) - 1
    slot = np.int64((key * GOLDEN) >> np.uint64(33)) & mask
    while keys[slot] != 0 and keys[slot] != key:
        slot = (slot + 1) & mask
    return int(slot)


@kernel
def string_hash(codes: NDArray[np.uint32], start: int, end: int) -> np.uint64:
    """The hash of codes[start:end], never 0."""
    value = np.uint64(end - start + 1)
    place = start
    while place + 1 < end:
        value = value * BASE + (np.uint64(codes[place]) | np.uint64(codes[place + 1]) << np.uint64(32))
        value ^= value >> np.uint64(29)
        place += 2
    if place < end:
        value = value * BASE + np.uint64(codes[place])
    value ^= value >> np.uint64(32)
    return max(value * MIX, np.uint64(1))
