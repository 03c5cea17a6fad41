"""An interpolated n-gram model over bytes: the classical language model that a neural one has to beat.

Witten-Bell interpolation (Witten & Bell 1991, "The zero-frequency problem", method C; in the recursive
form of Chen & Goodman 1998, "An empirical study of smoothing techniques for language modeling", section
2.5). With h the j bytes before byte w, c counts in the training text, and T(h) the number of different
bytes seen after h:

    p_j(w | h) = (c(h w) + T(h) p_{j-1}(w | h shortened by its first byte)) / (c(h) + T(h))

down to p_{-1} = 1/256; where h was never seen, p_j = p_{j-1}. Each p_j sums to one over the 256 bytes.

h and w are packed into one 64-bit integer, so that counting is one sort per order and scoring is a binary
search; eight bytes in 64 bits limit the order to 7. Contexts do not cross documents: the byte at offset i
of a document uses orders up to i.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

MAX_ORDER = 7
DEFAULT_ORDER = 5
CANDIDATE_ORDERS = (3, 4, 5, 6, 7)


@dataclass(frozen=True)
class _Level:
    """Counts of one order. `grams` (h w) and `contexts` (h) are packed and sorted."""

    grams: np.ndarray  # uint64
    counts: np.ndarray  # c(h w)
    contexts: np.ndarray  # uint64
    totals: np.ndarray  # c(h)
    distinct: np.ndarray  # T(h)


class NgramModel:
    """Byte probabilities given up to `order` bytes before. Build one with `fit`."""

    def __init__(self, levels: Sequence[_Level], train_bytes: int) -> None:
        self._levels = list(levels)
        self.train_bytes = train_bytes

    @property
    def order(self) -> int:
        """The longest context in bytes; 5 is what is often called a 6-gram."""
        return len(self._levels) - 1

    @classmethod
    def fit(cls, documents: Iterable[bytes], order: int = DEFAULT_ORDER) -> "NgramModel":
        """Count all contexts of up to `order` bytes in `documents`.

        Memory at its peak is some 40 bytes per byte of text, plus 12 per different n-gram that stays.
        """
        if not 0 <= order <= MAX_ORDER:
            raise ValueError(f"order {order} is outside 0..{MAX_ORDER}: context and byte share 64 bits")
        text, offsets = _join(documents)
        if not len(text):
            raise ValueError("an n-gram model needs training text")
        levels = []
        packed = text.astype(np.uint64)
        for j in range(order + 1):
            _lengthen(packed, text, j)
            levels.append(_count(packed[offsets >= j]))
        return cls(levels, len(text))

    def bits_by_order(self, documents: Sequence[bytes]) -> np.ndarray:
        """Bits of each document under p_0 .. p_order: float64 [order + 1, num_documents]."""
        text, offsets = _join(documents)
        ends = np.cumsum([len(document) for document in documents])
        bits = np.zeros((self.order + 1, len(documents)))
        packed = text.astype(np.uint64)
        probability = np.full(len(text), 1 / 256)
        for j, level in enumerate(self._levels):
            _lengthen(packed, text, j)
            inside = offsets >= j
            probability[inside] = _interpolate(level, packed[inside], probability[inside])
            running = np.concatenate([[0.0], np.cumsum(-np.log2(probability))])
            bits[j] = running[ends] - running[ends - [len(document) for document in documents]]
        return bits

    def document_bits(self, documents: Sequence[bytes]) -> np.ndarray:
        """Bits of each document at the model's full order: float64 [num_documents]."""
        return self.bits_by_order(documents)[-1]

    def distribution(self, context: bytes) -> np.ndarray:
        """The probability of each next byte after `context` (its last `order` bytes): float64 [256]."""
        probability = np.full(256, 1 / 256)
        next_byte = np.arange(256, dtype=np.uint64)
        for j, level in enumerate(self._levels[: len(context) + 1]):
            suffix = int.from_bytes(context[len(context) - j :], "big")
            probability = _interpolate(level, np.uint64(suffix << 8) | next_byte, probability)
        return probability


def choose_order(
    documents: Sequence[bytes],
    candidates: Sequence[int] = CANDIDATE_ORDERS,
    *,
    every: int = 20,
    max_slice_bytes: int = 1_000_000,
) -> int:
    """The candidate with the fewest bits on a slice of the training text that its counts do not include.

    The slice is every `every`-th document, up to `max_slice_bytes`. With one document there is
    no slice, and the answer is DEFAULT_ORDER.
    """
    chosen: set[int] = set()
    size = 0
    for index in range(every // 2 if len(documents) > every else 0, len(documents), every):
        if size + len(documents[index]) <= max_slice_bytes or not chosen:
            chosen.add(index)
            size += len(documents[index])
    rest = [document for index, document in enumerate(documents) if index not in chosen]
    if not any(rest) or size == 0:
        return DEFAULT_ORDER
    bits = NgramModel.fit(rest, max(candidates)).bits_by_order([documents[i] for i in sorted(chosen)])
    return min(candidates, key=lambda order: bits[order].sum())


def _join(documents: Iterable[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """All bytes in one uint8 array, and the offset of each inside its document (capped at MAX_ORDER)."""
    parts = list(documents)
    text = np.frombuffer(b"".join(parts), dtype=np.uint8)
    offsets = np.full(len(text), MAX_ORDER, dtype=np.uint8)
    start = 0
    for part in parts:
        head = min(len(part), MAX_ORDER)
        offsets[start : start + head] = np.arange(head)
        start += len(part)
    return text, offsets


def _lengthen(packed: np.ndarray, text: np.ndarray, j: int) -> None:
    """Put the byte j places back above the j bytes that `packed` holds already, in place."""
    if j > 0:
        packed[j:] |= text[:-j].astype(np.uint64) << np.uint64(8 * j)


def _count(packed: np.ndarray) -> _Level:
    grams, counts = np.unique(packed, return_counts=True)
    contexts_of_grams = grams >> np.uint64(8)
    is_first = np.ones(len(grams), dtype=bool)
    is_first[1:] = contexts_of_grams[1:] != contexts_of_grams[:-1]
    first = np.flatnonzero(is_first)
    return _Level(
        grams=grams,
        counts=counts.astype(np.uint32),
        contexts=contexts_of_grams[first],
        totals=np.add.reduceat(counts, first) if len(first) else counts,
        distinct=np.diff(np.append(first, len(grams))),
    )


def _interpolate(level: _Level, packed: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """p_j of each packed (h w), from p_{j-1} of the same places."""
    context, seen = _look_up(level.contexts, packed >> np.uint64(8))
    gram, counted = _look_up(level.grams, packed)
    result = lower.copy()
    context = context[seen]
    count = np.where(counted, level.counts[gram], 0)[seen] if len(level.grams) else np.zeros(0)
    total, distinct = level.totals[context], level.distinct[context]
    result[seen] = (count + distinct * lower[seen]) / (total + distinct)
    return result


def _look_up(table: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(index into the sorted `table`, whether it holds the key); the index is valid in any case."""
    if not len(table):
        return np.zeros(len(keys), dtype=np.int64), np.zeros(len(keys), dtype=bool)
    index = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return index, table[index] == keys
