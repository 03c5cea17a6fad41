"""What a task found of each item, kept as a file of lines beside its result.

A comparison of two checkpoints, or an interval over documents, needs every item's score; a result says in
`items_file` where these are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedbed.errors import DataError
from seedbed.files import canonical_json, read_lines, write_atomic


@dataclass(frozen=True)
class ItemScores:
    """N items, in the order of the task."""

    ids: list[str]
    documents: list[str]
    """What an item was made of: items of one document are not independent."""
    sources: list[str]
    """Where the document is from, such as its package."""
    scores: NDArray[np.float64]
    """1 for right and 0 for wrong, or the share of samples that are right; of texts, bits. NaN where it could
    not be found out."""
    utf8_bytes: NDArray[np.int64]
    """Of the scored text: of a choice, the right one's."""
    tokens: NDArray[np.int64]
    """Of the same."""
    rows: list[dict[str, Any]]
    """All that is known, such as the log-likelihoods of all choices."""


def item_scores(rows: Sequence[dict[str, Any]]) -> ItemScores:
    """The rows of a task as arrays."""
    scores = [float("nan") if row["score"] is None else row["score"] for row in rows]
    return ItemScores(
        [row["id"] for row in rows],
        [row["document"] for row in rows],
        [row["source"] for row in rows],
        np.array(scores, dtype=np.float64),
        np.array([row["utf8_bytes"] for row in rows], dtype=np.int64),
        np.array([row["tokens"] for row in rows], dtype=np.int64),
        list(rows),
    )


def write_items(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """A line for each item, all of them or none."""
    write_atomic(path, b"".join(canonical_json(row) + b"\n" for row in rows))


def read_items(path: Path) -> ItemScores:
    """What `write_items` wrote."""
    rows = list(read_lines(path))
    if not rows:
        raise DataError(f"{path} has no scores of items", "evaluate the checkpoint again")
    return item_scores(rows)
