"""Counter-based randomness: every draw is a pure function of what it is for.

There is no generator state to save, restore or get out of step: the draw for
(seed, purpose, position, index) is the same on any rank, in any order, after any resume.
The key is a SHA-256 of those four, the generator is Philox 4x64 (Salmon et al. 2011,
"Parallel random numbers: as easy as 1, 2, 3").
"""

import hashlib

import numpy as np


def key(seed: int, purpose: str, *where: int | str) -> int:
    """A 128-bit key for `purpose` at `where` (position, index, a parameter's name ...)."""
    text = "\x1f".join([str(seed), purpose, *map(str, where)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")


def seed64(seed: int, purpose: str, *where: int | str) -> int:
    """A 63-bit seed for generators that take one number, such as torch's."""
    return key(seed, purpose, *where) & (2**63 - 1)


def generator(seed: int, purpose: str, *where: int | str) -> np.random.Generator:
    """A numpy generator that belongs to `purpose` at `where` alone."""
    return np.random.Generator(np.random.Philox(key=key(seed, purpose, *where)))


def uniform_of(seed: int, purpose: str, *where: int | str) -> float:
    """One number in [0, 1) for `purpose` at `where`."""
    return (key(seed, purpose, *where) & (2**53 - 1)) / 2**53
