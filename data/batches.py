"""From a split to batches: which tokens a sample is, as a pure function of its position.

There is no iterator to save and restore: whoever knows the position knows the batch, on any rank,
after any resume.

Shapes: B samples, T = context tokens per sample.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from data.order import Permutation
from data.shards import Split
from seedbed.errors import DataError
from seedbed.randomness import seed64


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
    """[B, T] which document of the window each input belongs to, from 0; end-of-text ends its own."""

    def __len__(self) -> int:
        return len(self.tokens)


class WindowStream:
    """Windows of `context` tokens over a split, epoch after epoch without end.

    Window w has inputs w T .. w T + T - 1 and, one further, their targets, so that every token but
    the first of the split is a target once per epoch (up to T tokens at the end are left out). Epoch e
    goes through the windows in a permutation of its own, keyed by (seed, "order", e).
    """

    def __init__(self, split: Split, context: int, seed: int, shuffle: bool = True) -> None:
        if context < 1:
            raise ValueError(f"context must be at least 1, not {context}")
        self.split, self.context, self.seed, self.shuffle = split, context, seed, shuffle
        self.num_windows = (split.num_tokens - 1) // context
        if self.num_windows < 1:
            raise DataError(
                f"the {split.name} split has {split.num_tokens:,} tokens, fewer than one window of "
                f"model.context + 1 = {context + 1:,}",
                "give more text, change data.holdout_fraction, or set a smaller model.context",
            )
        self._order = lru_cache(maxsize=4)(self._make_order)

    def batch(self, position: int, count: int) -> Batch:
        """Samples position .. position + count - 1 of the endless stream."""
        if position < 0 or count < 0:
            raise ValueError(f"position and count must not be negative: {position}, {count}")
        rows = np.empty((count, self.context + 1), dtype=np.int64)
        for row, window in zip(rows, self.windows(position, count).tolist(), strict=True):
            row[:] = self.split.tokens(window * self.context, window * self.context + self.context + 1)
        tokens, targets = rows[:, :-1].copy(), rows[:, 1:].copy()
        ended = np.cumsum(tokens == self.split.end_of_text_id, axis=1, dtype=np.int32)
        documents = np.zeros_like(ended)
        documents[:, 1:] = ended[:, :-1]
        return Batch(tokens, targets, np.ones(tokens.shape, dtype=np.float32), documents)

    def windows(self, position: int, count: int) -> NDArray[np.int64]:
        """[count]: the window that each of these samples is."""
        epochs, places = np.divmod(np.arange(position, position + count, dtype=np.int64), self.num_windows)
        if not self.shuffle:
            return places
        windows = np.empty_like(places)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            windows[here] = self._order(epoch).many(places[here])
        return windows

    def position_of_epoch(self, epoch: int) -> int:
        """The position of the first sample of `epoch`, counting from 0."""
        return epoch * self.num_windows

    def _make_order(self, epoch: int) -> Permutation:
        return Permutation(self.num_windows, seed64(self.seed, "order", epoch))
