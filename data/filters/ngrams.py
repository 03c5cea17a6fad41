"""How many of a text's characters stand in repeated word n-grams.

Words are hashed once, as prefix sums of hash_k * FACTOR^k modulo 2^64: the hash of any run of words is a
difference of two sums times a power of FACTOR's inverse (the fingerprints of Karp and Rabin 1987, over
words, with a fixed base).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.filters.compiled import kernel
from data.filters.hashing import BASE, find_slot, new_table, string_hash

_INVERSE = np.uint64(pow(int(BASE), -1, 2**64))


class WordSums(NamedTuple):
    """W words, up to each of them and up to the end."""

    hashes: NDArray[np.uint64]
    """[W + 1]: the sum of the words before."""
    shifts: NDArray[np.uint64]
    """[W + 1]: what brings a difference of sums that starts here to the front."""
    chars: NDArray[np.int64]
    """[W + 1]: the characters of the words before."""


def sum_words(codes: NDArray[np.uint32], words: NDArray[np.int32]) -> WordSums:
    """The sums of `words`, which are spans of `codes`."""
    return WordSums(*_sum_words(codes, words))


@kernel
def _sum_words(
    codes: NDArray[np.uint32], words: NDArray[np.int32]
) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int64]]:
    hashes = np.empty(len(words) + 1, dtype=np.uint64)
    shifts = np.empty(len(words) + 1, dtype=np.uint64)
    chars = np.empty(len(words) + 1, dtype=np.int64)
    hashes[0], shifts[0], chars[0] = 0, 1, 0
    power = np.uint64(1)
    for word in range(len(words)):
        start, end = words[word, 0], words[word, 1]
        hashes[word + 1] = hashes[word] + string_hash(codes, start, end) * power
        shifts[word + 1] = shifts[word] * _INVERSE
        chars[word + 1] = chars[word] + end - start
        power *= BASE
    return hashes, shifts, chars


@kernel
def _ngram_key(hashes: NDArray[np.uint64], shifts: NDArray[np.uint64], first: int, size: int) -> np.uint64:
    return max((hashes[first + size] - hashes[first]) * shifts[first], np.uint64(1))


@kernel
def top_ngram_chars(
    hashes: NDArray[np.uint64], shifts: NDArray[np.uint64], chars: NDArray[np.int64], size: int
) -> int:
    """Characters of the most frequent n-gram of `size` words, one more for each gap, times its occurrences.

    Of n-grams that are equally frequent, the first in the text. 0 for texts of fewer words.
    """
    count = max(len(hashes) - size, 0)
    keys = new_table(count)
    firsts, occurrences = np.empty(len(keys), dtype=np.int32), np.zeros(len(keys), dtype=np.int32)
    best, most = 0, 0
    for first in range(count):
        key = _ngram_key(hashes, shifts, first, size)
        slot = find_slot(keys, key)
        if keys[slot] == 0:
            keys[slot] = key
            firsts[slot] = first
        occurrences[slot] += 1
        if occurrences[slot] > most or (occurrences[slot] == most and firsts[slot] < best):
            best, most = firsts[slot], occurrences[slot]
    return (chars[best + size] - chars[best] + size - 1) * most if most else 0


@kernel
def repeated_ngram_chars(
    hashes: NDArray[np.uint64], shifts: NDArray[np.uint64], chars: NDArray[np.int64], size: int
) -> int:
    """Characters of n-grams of `size` words that occurred before, without the gaps.

    From the front: after an n-gram that occurred before, the search goes on behind it, else at the next word.
    """
    count = max(len(hashes) - size, 0)
    keys = new_table(count)
    repeated, first = 0, 0
    while first < count:
        key = _ngram_key(hashes, shifts, first, size)
        slot = find_slot(keys, key)
        if keys[slot] == 0:
            keys[slot] = key
            first += 1
        else:
            repeated += chars[first + size] - chars[first]
            first += size
    return repeated


@kernel
def covered_chars(
    hashes: NDArray[np.uint64], shifts: NDArray[np.uint64], chars: NDArray[np.int64], size: int
) -> int:
    """Characters of all words that stand in any n-gram of `size` words that occurred before.

    A bound of `repeated_ngram_chars` for this size and all greater ones: every n-gram of a longer one that is
    repeated is repeated too.
    """
    count = max(len(hashes) - size, 0)
    keys = new_table(count)
    covered, end = 0, 0
    for first in range(count):
        key = _ngram_key(hashes, shifts, first, size)
        slot = find_slot(keys, key)
        if keys[slot] == 0:
            keys[slot] = key
        else:
            covered += chars[first + size] - chars[max(first, end)]
            end = first + size
    return covered
