"""What no part can decide alone: which documents repeat others, and which are held out.

Documents are numbered through all parts, in the order of the source, so the first of several equal
ones is the same whatever the parts and whoever surveyed them.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from data.build.surveyed import Survey
from data.config import DataConfig
from data.exact_duplicates import first_occurrences
from data.near_duplicates import band_keys, cluster_duplicates, group_near_duplicates, recall_threshold
from data.sources import Drop
from data.splits import split_groups

TRAIN, HOLDOUT, EXACT_DUPLICATE, NEAR_DUPLICATE = range(4)
REPEATED_ID = "repeated_id"


@dataclass(frozen=True)
class Decisions:
    """`fates` [N] uint8 of all surveyed documents; `firsts` [N]: whose copy each is (itself, if none)."""

    fates: NDArray[np.uint8]
    firsts: NDArray[np.int64]
    starts: NDArray[np.int64]
    """[parts + 1]: the number of the first document of each part."""
    near_duplicate_groups: dict[str, int]

    def of_part(self, part: int) -> NDArray[np.uint8]:
        """The fates of the documents of one part, in order."""
        return self.fates[self.starts[part] : self.starts[part + 1]]


def decide(config: DataConfig, surveys: Sequence[Survey]) -> Decisions:
    """Decide for all documents of `surveys`; DataError when they are too few to hold any out."""
    starts = np.cumsum([0, *(survey.num_kept for survey in surveys)])
    digests = [survey.digests for survey in surveys]
    firsts = first_occurrences(digests)
    numbers = np.arange(len(firsts))
    fates = np.zeros(len(firsts), dtype=np.uint8)
    if config.drop_exact_duplicates:
        fates[firsts != numbers] = EXACT_DUPLICATE
    if config.drop_near_duplicates:
        clusters = cluster_duplicates([band_keys(survey.signatures) for survey in surveys])
        copies = (clusters != numbers) & (fates == TRAIN)
        fates[copies] = NEAR_DUPLICATE
        firsts = np.where(copies, clusters, firsts)
    kept = np.flatnonzero(fates == TRAIN)
    groups = {"groups": 0, "documents": 0, "largest": 0, "too_large_for_holdout": 0}
    if config.holdout_fraction:
        labels = firsts[kept]
        if config.near_duplicate_threshold:
            # A missed near-copy is a leak here, and a needless join costs nothing: 56 bands of 2 rows miss
            # 1 pair in 10 million at similarity 0.5, and the threshold allows for the error of signatures.
            labels = group_near_duplicates(
                _rows([survey.signatures for survey in surveys], kept),
                bands=56,
                rows=2,
                threshold=recall_threshold(config.near_duplicate_threshold),
            )
        sizes = _rows([survey.num_bytes for survey in surveys], kept)
        split = split_groups(_rows(digests, kept), sizes, labels, config.holdout_fraction, config.seed)
        fates[kept[split.held_out]] = HOLDOUT
        groups = split.counts
    return Decisions(fates, firsts, starts, groups)


def _rows(parts: Sequence[NDArray], chosen: NDArray[np.int64]) -> NDArray:
    """Rows `chosen` (ascending) of the concatenation of `parts`, without making that."""
    starts = np.cumsum([0, *map(len, parts)])
    bounds = np.searchsorted(chosen, starts)
    pieces = [
        part[chosen[low:high] - start]
        for part, start, low, high in zip(parts, starts[:-1], bounds[:-1], bounds[1:], strict=True)
    ]
    return np.concatenate(pieces)


def listed(surveys: Sequence[Survey], decisions: Decisions) -> Iterator[Drop]:
    """What the decisions did to documents, in order: copies that were dropped, ids that occur again."""
    provenances = lru_cache(maxsize=8)(lambda part: list(surveys[part].provenances()))

    def name_of(number: int) -> tuple[str, str]:
        part = int(np.searchsorted(decisions.starts, number, side="right")) - 1
        row = json.loads(provenances(part)[number - int(decisions.starts[part])])
        return row["id"], row["source"]

    for number in np.flatnonzero(decisions.fates >= EXACT_DUPLICATE).tolist():
        (id, source), (first, _) = name_of(number), name_of(int(decisions.firsts[number]))
        if decisions.fates[number] == EXACT_DUPLICATE:
            yield Drop(id, source, "exact_duplicate", f"the same text as {first}")
        else:
            yield Drop(id, source, "near_duplicate", f"almost the same text as {first}")
    for number, earlier in _repeated_ids(surveys, decisions.fates):
        (id, source), (_, place) = name_of(number), name_of(earlier)
        yield Drop(id, source, REPEATED_ID, f"kept; the document from {place} has this id too")


def _repeated_ids(surveys: Sequence[Survey], fates: NDArray[np.uint8]) -> Iterator[tuple[int, int]]:
    """Kept documents whose id an earlier kept one has, with the first of these."""
    kept = np.flatnonzero(fates < EXACT_DUPLICATE)
    hashes = _rows([survey.id_hashes for survey in surveys], kept)
    order = np.argsort(hashes, kind="stable")
    new = np.concatenate([[True], hashes[order][1:] != hashes[order][:-1]])
    firsts = np.empty_like(order)
    firsts[order] = order[np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))]
    for place in np.flatnonzero(firsts != np.arange(len(order))).tolist():
        yield int(kept[place]), int(kept[firsts[place]])
