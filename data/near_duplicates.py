"""Near-copies: which documents say almost the same, by MinHash and banding.

The similarity of two documents is the Jaccard similarity of their sets of word 5-grams. A
signature holds, for each of P random orders of all 5-grams, the smallest one of the document;
two signatures agree in a place with probability equal to the similarity (Broder 1997, "On the
resemblance and containment of documents"). Documents that agree in all rows of a band become
candidates: with b bands of r rows, similarity s is a candidate with probability
1 - (1 - s^r)^b (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, section 3.4). What
becomes of candidates is decided by their whole signatures.

    for the held-out split, where a missed copy is a leak:   56 bands x 2 rows, nothing missed at 0.5
    for a filter that removes copies:                        14 bands x 8 rows, half caught at 0.72

Shapes: N documents, P places of a signature.
"""

import hashlib
import math
import re

import numpy as np
from numpy.typing import NDArray

from data.hashing import mix64
from seedbed.randomness import generator

NUM_PERMUTATIONS = 112
NGRAM_WORDS = 5

_WORD = re.compile(r"\w+")
_CHUNK_SHINGLES = 1024
_MAX_CACHED_WORDS = 2**20

# In a bucket of boilerplate (say, one licence text), each document is compared with this many
# neighbours, so that cost stays linear. Neighbours are those that agree in further places too,
# and near-copies meet in many buckets.
_MAX_NEIGHBOURS = 256
_COMPARED_AT_ONCE = 2**15


class MinHasher:
    """Gives documents their signatures. Two hashers with the same arguments agree, always."""

    def __init__(self, num_permutations: int = NUM_PERMUTATIONS, ngram_words: int = NGRAM_WORDS) -> None:
        self.num_permutations, self.ngram_words = num_permutations, ngram_words
        # A fixed seed: whether two texts are near-copies does not depend on a run's configuration.
        draws = generator(0, "minhash", num_permutations, ngram_words)
        self._factors = _any64(draws, num_permutations)[:, None] | np.uint64(1)
        self._offsets = _any64(draws, num_permutations)[:, None]
        self._places = _any64(draws, ngram_words) | np.uint64(1)
        self._words = _WordHashes()

    def shingles(self, text: str) -> NDArray[np.uint64]:
        """A hash per word 5-gram of `text`, in order.

        Words are runs of letters, digits and "_", in lower case. A text of fewer words is one
        shingle of the words that it has; one without words is a shingle as it stands.
        """
        words = _WORD.findall(text.lower()) or [text]
        hashes = np.fromiter(map(self._words.__getitem__, words), dtype=np.uint64, count=len(words))
        size = min(self.ngram_words, len(words))
        num_shingles = len(words) - size + 1
        sums = np.zeros(num_shingles, dtype=np.uint64)
        for place in range(size):
            sums += hashes[place : place + num_shingles] * self._places[place]
        return mix64(sums)

    def signature(self, text: str) -> NDArray[np.uint32]:
        """[P]: for each permutation the smallest image of a shingle, its upper 32 bits.

        The permutations are x -> a x + b modulo 2^64 with odd a, of shingles that are hashes
        already (the linear family of Broder, Charikar, Frieze and Mitzenmacher 1998).
        """
        shingles = self.shingles(text)
        smallest = np.full(self.num_permutations, np.iinfo(np.uint64).max, dtype=np.uint64)
        for start in range(0, len(shingles), _CHUNK_SHINGLES):
            images = self._factors * shingles[start : start + _CHUNK_SHINGLES]
            images += self._offsets
            np.minimum(smallest, images.min(axis=1), out=smallest)
        return (smallest >> np.uint64(32)).astype(np.uint32)


def _any64(draws: np.random.Generator, count: int) -> NDArray[np.uint64]:
    return draws.integers(np.iinfo(np.uint64).max, size=count, dtype=np.uint64, endpoint=True)


class _WordHashes(dict[str, int]):
    """Word -> 64-bit hash, the same in every process; forgets all when it grows too large."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _MAX_CACHED_WORDS:
            self.clear()
        value = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
        self[word] = value
        return value


def candidate_probability(similarity: float, bands: int, rows: int) -> float:
    """The chance that two documents of this similarity meet in at least one band."""
    return 1.0 - (1.0 - similarity**rows) ** bands


def recall_threshold(similarity: float, num_permutations: int = NUM_PERMUTATIONS) -> float:
    """The share of agreeing places that 999 in 1000 pairs of at least this similarity reach.

    The share of P places is binomial; this is three standard errors below its mean.
    """
    return similarity - 3.0 * math.sqrt(similarity * (1.0 - similarity) / num_permutations)


def group_near_duplicates(
    signatures: NDArray[np.uint32], *, bands: int, rows: int, threshold: float
) -> NDArray[np.int64]:
    """[N]: for each document the index of the first document of its group; its own when it is alone.

    `signatures` is [N, P] with bands * rows <= P. Candidates of the banding join when the share
    of places in which they agree is at least `threshold`; groups are what is connected so.
    """
    num_documents, num_places = signatures.shape
    if bands * rows > num_places:
        raise ValueError(f"{bands} bands of {rows} rows need more than {num_places} places")
    groups = _Groups(num_documents)
    for band in range(bands):
        columns = np.arange(band * rows, band * rows + rows + 2) % num_places
        keys = _combined(signatures[:, columns[:rows]])
        order = np.lexsort((_combined(signatures[:, columns[rows:]]), keys))
        _join_neighbours(signatures, order, keys[order], groups, threshold)
    return groups.labels()


def _combined(columns: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """[N]: one number for each row of `columns`."""
    combined = np.zeros(len(columns), dtype=np.uint64)
    for column in columns.T:
        combined = mix64(combined + column + np.uint64(1))
    return combined


def _join_neighbours(
    signatures: NDArray[np.uint32],
    order: NDArray[np.int64],
    keys: NDArray[np.uint64],
    groups: "_Groups",
    threshold: float,
) -> None:
    """Compare each document with those that follow it in its bucket, at distance 1, 2, 3 ..."""
    for distance in range(1, min(_MAX_NEIGHBOURS, len(order) - 1) + 1):
        firsts = np.flatnonzero(keys[:-distance] == keys[distance:])
        if len(firsts) == 0:
            return
        labels = groups.labels()
        left, right = order[firsts], order[firsts + distance]
        apart = labels[left] != labels[right]
        left, right = left[apart], right[apart]
        for start in range(0, len(left), _COMPARED_AT_ONCE):
            a, b = left[start : start + _COMPARED_AT_ONCE], right[start : start + _COMPARED_AT_ONCE]
            agreeing = (signatures[a] == signatures[b]).mean(axis=1) >= threshold
            for one, other in zip(a[agreeing].tolist(), b[agreeing].tolist(), strict=True):
                groups.join(one, other)


class _Groups:
    """Union-find whose roots are the smallest members."""

    def __init__(self, size: int) -> None:
        self._parents = np.arange(size, dtype=np.int64)

    def join(self, one: int, other: int) -> None:
        one, other = self._root(one), self._root(other)
        self._parents[max(one, other)] = min(one, other)

    def _root(self, member: int) -> int:
        parents = self._parents
        while (parent := int(parents[member])) != member:
            parents[member] = parents[parent]
            member = parent
        return member

    def labels(self) -> NDArray[np.int64]:
        """[N]: the root of every member, by pointer jumping (a few passes, whatever the shape)."""
        while not np.array_equal(above := self._parents[self._parents], self._parents):
            self._parents = above
        return self._parents.copy()
