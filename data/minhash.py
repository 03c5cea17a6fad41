"""Signatures of texts whose agreement estimates how much of their wording they share, by MinHash.

The similarity of two texts is the Jaccard similarity of their sets of word 5-grams. A signature holds,
for each of P random orders of all 5-grams, the smallest one of the text; two signatures agree in a
place with probability equal to the similarity (Broder 1997, "On the resemblance and containment of
documents"), so the share of places that agree has a standard error of sqrt(s (1 - s) / P).

The orders are x -> a x + b modulo 2^32 with odd a, over 5-grams hashed to 32 bits (the linear family of
Broder, Charikar, Frieze and Mitzenmacher 1998): what a processor does 8 of at once. Two different
5-grams meet in one number so rarely that n of them bias the estimate by less than n / 2^32.

Shapes: N texts, P places of a signature, S shingles of all texts.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data.shingles import Words, hash_ngrams, hash_words, in_groups
from seedbed.randomness import generator

NUM_PERMUTATIONS = 112
NGRAM_WORDS = 5

# A block of images, orders x shingles, that stays in a processor's second-level cache.
_BLOCK_SHINGLES = 2**13
_BLOCK_ORDERS = 14


class MinHasher:
    """Gives texts their signatures. Two hashers with the same arguments agree, always."""

    def __init__(self, num_permutations: int = NUM_PERMUTATIONS, ngram_words: int = NGRAM_WORDS) -> None:
        self.num_permutations, self.ngram_words = num_permutations, ngram_words
        # A fixed seed: whether two texts are near-copies does not depend on a run's configuration.
        draws = generator(0, "minhash", num_permutations, ngram_words)
        factors, offsets = draws.integers(2**32, size=(2, num_permutations, 1), dtype=np.uint32)
        self._factors, self._offsets = factors | np.uint32(1), offsets

    def signatures(self, texts: Sequence[str]) -> NDArray[np.uint32]:
        """[N, P]: the signature of every text.

        A text of fewer words than a shingle has is one shingle of all of them; one without words is
        a shingle as it stands.
        """
        smallest = np.full((self.num_permutations, len(texts)), np.iinfo(np.uint32).max, dtype=np.uint32)
        for group in in_groups(texts):
            shingles = self._shingles(texts[group])
            self._lower(smallest[:, group], shingles)
        return np.ascontiguousarray(smallest.T)

    def _shingles(self, texts: Sequence[str]) -> Words:
        """The word n-grams of `texts`, at least one of each."""
        ngrams = hash_ngrams(hash_words(texts), self.ngram_words)
        wordless = np.flatnonzero(np.diff(ngrams.bounds) == 0)
        if len(wordless) == 0:
            return ngrams
        whole = np.array([_hash_text(texts[number]) for number in wordless.tolist()], dtype=np.uint64)
        hashes = np.insert(ngrams.hashes, ngrams.bounds[wordless], whole)
        return Words(hashes, ngrams.bounds + np.searchsorted(wordless, np.arange(len(texts) + 1)))

    def _lower(self, smallest: NDArray[np.uint32], shingles: Words) -> None:
        """Bring `smallest` [P, N] down to the images of the shingles of each text."""
        places = (shingles.hashes >> np.uint64(32)).astype(np.uint32)
        images = np.empty((_BLOCK_ORDERS, min(_BLOCK_SHINGLES, len(places))), dtype=np.uint32)
        for begin in range(0, len(places), _BLOCK_SHINGLES):
            block = places[begin : begin + _BLOCK_SHINGLES]
            first = np.searchsorted(shingles.bounds, begin, side="right") - 1
            last = np.searchsorted(shingles.bounds, begin + len(block))
            starts = np.maximum(shingles.bounds[first:last] - begin, 0)
            for top in range(0, self.num_permutations, _BLOCK_ORDERS):
                orders = slice(top, min(top + _BLOCK_ORDERS, self.num_permutations))
                image = images[: orders.stop - top, : len(block)]
                np.multiply(self._factors[orders], block, out=image)
                image += self._offsets[orders]
                lowest = np.minimum.reduceat(image, starts, axis=1)
                np.minimum(smallest[orders, first:last], lowest, out=smallest[orders, first:last])


def _hash_text(text: str) -> int:
    encoded = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "little")
