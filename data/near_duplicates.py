"""Near-copies: which documents say almost the same, by banding of MinHash signatures.

Documents that agree in all rows of a band become candidates: with b bands of r rows, similarity s is a
candidate with probability 1 - (1 - s^r)^b (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets,
section 3.4).

    for a filter that removes copies:                        14 bands x 8 rows, half caught at 0.72;
                                                             all candidates are joined
    for the held-out split, where a missed copy is a leak:   56 bands x 2 rows, nothing missed at 0.5;
                                                             candidates whose signatures agree are joined

Shapes: N documents, P places of a signature, B bands.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data.components import Components
from data.hashing import mix64
from data.minhash import NUM_PERMUTATIONS

# In a bucket of boilerplate (say, one licence text), each document is compared with this many
# neighbours, so that cost stays linear. Neighbours are those that agree in further places too,
# and near-copies meet in many buckets.
_MAX_NEIGHBOURS = 256
_COMPARED_AT_ONCE = 2**15


def candidate_probability(similarity: float, bands: int, rows: int) -> float:
    """The chance that two documents of this similarity meet in at least one band."""
    return 1.0 - (1.0 - similarity**rows) ** bands


def recall_threshold(similarity: float, num_permutations: int = NUM_PERMUTATIONS) -> float:
    """The share of agreeing places that 999 in 1000 pairs of at least this similarity reach.

    The share of P places is binomial; this is three standard errors below its mean.
    """
    return similarity - 3.0 * math.sqrt(similarity * (1.0 - similarity) / num_permutations)


def band_keys(signatures: NDArray[np.uint32], bands: int = 14, rows: int = 8) -> NDArray[np.uint64]:
    """[B, N]: a number for each band of each signature of [N, P], equal where all its rows are.

    It is all that `cluster_duplicates` needs of a document. Among 300 million documents, 0.002 pairs per
    band are expected to share a number by accident.
    """
    _check_banding(signatures, bands, rows)
    return np.stack([_combined(signatures[:, band * rows : (band + 1) * rows]) for band in range(bands)])


def cluster_duplicates(keys: NDArray[np.uint64] | Sequence[NDArray[np.uint64]]) -> NDArray[np.int64]:
    """[N]: for each document the first one of its cluster; its own number when it is alone.

    `keys` is what `band_keys` gives: [B, N], or several [B, n] that follow each other (one per part of
    the input, memory-mapped). Documents that share a band are joined, and so are those that are joined
    with the same one. Beyond `keys` it takes some 50 bytes of memory per document.
    """
    parts = [keys] if isinstance(keys, np.ndarray) else list(keys)
    clusters = Components(sum(part.shape[1] for part in parts))
    for band in range(len(parts[0]) if parts else 0):
        of_band = np.concatenate([part[band] for part in parts])
        order = np.argsort(of_band)
        of_band = of_band[order]
        same = of_band[1:] == of_band[:-1]
        clusters.join(order[:-1][same], order[1:][same])
    return clusters.labels


def group_near_duplicates(
    signatures: NDArray[np.uint32], *, bands: int, rows: int, threshold: float
) -> NDArray[np.int64]:
    """[N]: for each document the first one of its group; its own number when it is alone.

    `signatures` is [N, P] with bands * rows <= P. Candidates of the banding are joined when the share of
    places in which they agree is at least `threshold`, and so are those that are joined with the same one.
    """
    _check_banding(signatures, bands, rows)
    num_documents, num_places = signatures.shape
    groups = Components(num_documents)
    for band in range(bands):
        columns = np.arange(band * rows, band * rows + rows + 2) % num_places
        keys = _combined(signatures[:, columns[:rows]])
        order = np.lexsort((_combined(signatures[:, columns[rows:]]), keys))
        _join_neighbours(signatures, order, keys[order], groups, threshold)
    return groups.labels


def _check_banding(signatures: NDArray[np.uint32], bands: int, rows: int) -> None:
    if bands * rows > signatures.shape[1]:
        raise ValueError(f"{bands} bands of {rows} rows need more than {signatures.shape[1]} places")


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
    groups: Components,
    threshold: float,
) -> None:
    """Compare each document with those that follow it in its bucket, at distance 1, 2, 3 ..."""
    for distance in range(1, min(_MAX_NEIGHBOURS, len(order) - 1) + 1):
        firsts = np.flatnonzero(keys[:-distance] == keys[distance:])
        if len(firsts) == 0:
            return
        left, right = order[firsts], order[firsts + distance]
        apart = groups.labels[left] != groups.labels[right]
        left, right = left[apart], right[apart]
        for start in range(0, len(left), _COMPARED_AT_ONCE):
            a, b = left[start : start + _COMPARED_AT_ONCE], right[start : start + _COMPARED_AT_ONCE]
            agreeing = (signatures[a] == signatures[b]).mean(axis=1) >= threshold
            groups.join(a[agreeing], b[agreeing])
