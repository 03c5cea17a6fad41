"""From a split to batches: which tokens a sample is, as a pure function of its position.

There is no iterator to save and restore: whoever knows the position knows the batch, on any rank,
after any resume.

Shapes: B samples, T = context tokens per sample.
"""

from dataclasses import dataclass, fields
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from data.order import EpochOrder
from data.split import Split
from seedbed.errors import TooLittleData


@dataclass(frozen=True)
class Batch:
    """What a model learns from at once."""

    tokens: NDArray[np.int64]
    """[B, T] inputs."""
    targets: NDArray[np.int64]
    """[B, T] the token that follows each input."""
    weights: NDArray[np.float32]
    """[B, T] how much each target counts."""
    documents: NDArray[np.int32]
    """[B, T] which document of the sample each input belongs to, from 0; end-of-text ends its own."""
    positions: NDArray[np.int32]
    """[B, T] where each input stands: in the sample, or in its document when these are kept apart."""

    def __len__(self) -> int:
        return len(self.tokens)


def without_weight(batch: Any, first: int = 0) -> None:
    """Make samples `first` .. of a batch count for nothing: all floating-point fields are weights."""
    for field in fields(batch):
        values = getattr(batch, field.name)
        if values.dtype.kind == "f":
            values[first:] = 0


B_co = TypeVar("B_co", covariant=True)


class Stream(Protocol[B_co]):
    """An endless run of samples. Nothing is kept from one call to the next that could change a result."""

    @property
    def context(self) -> int:
        """Tokens per sample."""

    @property
    def num_samples(self) -> int:
        """Samples per epoch."""

    def batch(self, position: int, count: int) -> B_co:
        """Samples position .. position + count - 1 of the stream."""


class WindowStream:
    """Windows of `context` tokens over a split, epoch after epoch without end.

    Window w has inputs w T .. w T + T - 1 and, one further, their targets, so that every token but
    the first of the split is a target once per epoch (up to T tokens at the end are left out). Epoch e
    goes through the windows in an order of its own, keyed by (seed, "order", e).

    With `within_documents`, positions count from the start of each document (or of the window, if that
    is later), and no document's end is asked to predict the next one's first token.
    """

    def __init__(
        self, split: Split, context: int, seed: int, shuffle: bool = True, *, within_documents: bool = False
    ) -> None:
        if context < 1:
            raise ValueError(f"context must be at least 1, not {context}")
        self.split, self.context, self.seed, self.shuffle = split, context, seed, shuffle
        self.within_documents = within_documents
        self.num_windows = (split.num_tokens - 1) // context
        if self.num_windows < 1:
            raise too_few_tokens(split, context)
        self._order = EpochOrder(self.num_windows, seed, shuffle)

    @property
    def num_samples(self) -> int:
        """Samples per epoch."""
        return self.num_windows

    def batch(self, position: int, count: int) -> Batch:
        """Samples position .. position + count - 1 of the endless stream."""
        rows = np.empty((count, self.context + 1), dtype=np.int64)
        for row, window in zip(rows, self.windows(position, count).tolist(), strict=True):
            self.split.tokens_into(window * self.context, row)
        ends = rows[:, :-1] == self.split.end_of_text_id
        return assemble(rows, ends, ends if self.within_documents else None, self.within_documents)

    def windows(self, position: int, count: int) -> NDArray[np.int64]:
        """[count]: the window that each of these samples is."""
        return self._order.units(position, count)[1]


def assemble(
    rows: NDArray[np.int64],
    ends: NDArray[np.bool_],
    unlearned: NDArray[np.bool_] | None,
    within_documents: bool,
) -> Batch:
    """The batch of `rows` [B, T + 1], where `ends` [B, T] are the last inputs of documents.

    Targets that are `unlearned` [B, T] weigh 0, all others 1.
    """
    num_rows, context = ends.shape
    starts = np.empty_like(ends)
    starts[:, :1] = True
    starts[:, 1:] = ends[:, :-1]
    # Runs of inputs of one document: few and long, so that repeating beats any cumulative sum.
    runs = np.flatnonzero(starts)
    lengths = np.diff(runs, append=num_rows * context)
    run_rows = runs // context
    of_row = np.arange(len(runs)) - np.searchsorted(run_rows, run_rows)
    documents = np.repeat(of_row.astype(np.int32), lengths).reshape(ends.shape)
    positions = np.empty(ends.shape, dtype=np.int32)
    positions[:] = np.arange(context, dtype=np.int32)
    if within_documents:
        positions -= np.repeat((runs % context).astype(np.int32), lengths).reshape(ends.shape)
    weights = np.ones(ends.shape, dtype=np.float32)
    if unlearned is not None:
        weights[unlearned] = 0
    return Batch(rows[:, :-1].copy(), rows[:, 1:].copy(), weights, documents, positions)


def too_few_tokens(split: Split, context: int) -> TooLittleData:
    """The error for a split that does not fill a single sample."""
    return TooLittleData(
        f"the {split.name} split has {split.num_tokens:,} tokens, fewer than one window of "
        f"model.context + 1 = {context + 1:,}",
        "give more text, change data.holdout_fraction, or set a smaller model.context",
    )
