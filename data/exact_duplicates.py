"""Exact copies: which documents have the same SHA-256 as an earlier one.

Shapes: N documents.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_BUCKET_DOCUMENTS = 2**24


def first_occurrences(
    digests: NDArray[np.uint8] | Sequence[NDArray[np.uint8]], bucket_documents: int = _BUCKET_DOCUMENTS
) -> NDArray[np.int64]:
    """[N]: for each document the first one with the same SHA-256; its own number when there is none.

    `digests` is [N, 32], or several [n, 32] that follow each other (one per part of the input,
    memory-mapped). They are taken by their first two bytes, in buckets of about `bucket_documents`: memory
    beyond the result does not grow with N, and the digests are read through once per bucket.
    """
    parts = [digests] if isinstance(digests, np.ndarray) else list(digests)
    bounds = np.cumsum([0, *map(len, parts)])
    firsts = np.arange(bounds[-1], dtype=np.int64)
    if len(firsts) == 0:
        return firsts
    num_buckets = min(2**16, 1 + int(bounds[-1]) // bucket_documents)
    for bucket in range(num_buckets):
        members = [_members(part, bucket, num_buckets) for part in parts]
        numbers = np.concatenate([found + begin for found, begin in zip(members, bounds, strict=False)])
        rows = np.concatenate([part[found] for part, found in zip(parts, members, strict=True)])
        firsts[numbers] = numbers[_first_of_equal_rows(rows)]
    return firsts


def _members(part: NDArray[np.uint8], bucket: int, num_buckets: int) -> NDArray[np.int64]:
    """The rows of `part` whose first two bytes, as a share of 2^16, fall into this bucket."""
    if num_buckets == 1:
        return np.arange(len(part))
    prefixes = part[:, 0].astype(np.uint32) << np.uint32(8) | part[:, 1]
    return np.flatnonzero(prefixes * np.uint32(num_buckets) >> np.uint32(16) == bucket)


def _first_of_equal_rows(rows: NDArray[np.uint8]) -> NDArray[np.int64]:
    """[rows]: for each row of [rows, 32] the first that equals it."""
    firsts = np.arange(len(rows))
    words = np.ascontiguousarray(rows).view("<u8")
    order = np.argsort(words[:, 0], kind="stable")
    same = words[order[1:], 0] == words[order[:-1], 0]
    # Only rows that share their first 8 bytes with another are sorted by all of them.
    alike = np.zeros(len(order), dtype=np.bool_)
    alike[1:] |= same
    alike[:-1] |= same
    order = order[alike]
    order = order[np.lexsort(words[order].T)]
    sorted_words = words[order]
    is_new = np.ones(len(order), dtype=np.bool_)
    is_new[1:] = (sorted_words[1:] != sorted_words[:-1]).any(axis=1)
    firsts[order] = order[is_new][np.cumsum(is_new) - 1]
    return firsts
