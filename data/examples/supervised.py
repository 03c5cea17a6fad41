"""Rows of whole examples laid side by side: what a supervised fine-tuning run reads at a position.

Examples are put in one seeded order, and each 1,024 of them into as few rows as best fit, longest first,
finds (Ding et al. 2024, arXiv:2404.10830); rows are gone through in another order each epoch. No example is
cut but those longer than the context, by the policy. A row is a function of the position, and what an example
teaches is a function of the example: attention and positions stay inside it.

Shapes: B rows, T = context, R rows of an epoch, S sequences.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data.batches import Batch
from data.examples.table import ExampleTable, nothing_fits
from data.order import EpochOrder, Permutation
from seedbed.errors import DataError
from seedbed.randomness import seed64

TooLong = Literal["drop", "truncate", "fail"]
PER_BLOCK = 1024


@dataclass(frozen=True)
class Fitting:
    """Which sequences fit into `room` tokens."""

    kept: NDArray[np.int64]
    """Those that are used, ascending."""
    num_too_long: int
    """More tokens than there is room for: dropped, or truncated."""
    num_prompts_too_long: int
    """The prompt alone fills the room: never used."""
    policy: TooLong

    def described(self) -> str:
        """Empty when all fit."""
        told = []
        if self.num_too_long:
            what = "truncated" if self.policy == "truncate" else "left out"
            told.append(f"{self.num_too_long:,} longer than the context are {what}")
        if self.num_prompts_too_long:
            told.append(f"{self.num_prompts_too_long:,} are left out, since their prompt alone is longer")
        return ", ".join(told)


def fitting(table: ExampleTable, room: int, policy: TooLong) -> Fitting:
    """The sequences that fit, by the policy for longer ones; DataError when that is to fail."""
    is_long, is_hopeless = table.lengths > room, table.first_trained() >= room
    if policy == "fail" and is_long.any():
        worst = int(table.lengths.argmax())
        raise DataError(
            f"{int(is_long.sum()):,} of {len(is_long):,} sequences of the {table.split.name} split are "
            f"longer than the {room:,} tokens that fit; the longest has {int(table.lengths[worst]):,}",
            'set objective.too_long to "drop" or "truncate", or a larger model.context',
        )
    out = is_hopeless if policy == "truncate" else is_long | is_hopeless
    hopeless = is_hopeless & is_long
    return Fitting(np.flatnonzero(~out), int((is_long & ~hopeless).sum()), int(hopeless.sum()), policy)


class SupervisedStream:
    """Rows of packed examples, epoch after epoch without end.

    A target weighs its example's weight where it is trained, divided by the trained tokens of the example
    when `per_example`; elsewhere 0. Without `pack` each example has a row of its own. TooLittleData when none
    fits.
    """

    def __init__(
        self,
        table: ExampleTable,
        context: int,
        seed: int,
        *,
        pack: bool = True,
        too_long: TooLong = "drop",
        per_example: bool = False,
        shuffle: bool = True,
    ) -> None:
        self.table, self.context, self.per_example = table, context, per_example
        # An input is followed by its target: a sequence of n tokens takes n - 1 places.
        self.fitting = fitting(table, context + 1, too_long)
        # Of candidates for one prompt, the best alone is to be imitated.
        kept = self.fitting.kept[table.ranks[self.fitting.kept] == 0]
        if not len(kept):
            raise nothing_fits(table.split, context, self.fitting.described() or "it is empty")
        if shuffle:
            kept = kept[Permutation(len(kept), seed64(seed, "examples")).many(np.arange(len(kept)))]
        sizes = np.minimum(table.lengths[kept] - 1, context)
        self.num_examples = len(kept)
        self._rows = [row for block in _blocks(kept, sizes) for row in _packed(*block, context, pack)]
        self.num_samples = len(self._rows)
        self.filled = float(sizes.sum() / (self.num_samples * context))
        """Share of places that hold a token."""
        self._order = EpochOrder(self.num_samples, seed, shuffle)

    def batch(self, position: int, count: int) -> Batch:
        """Samples position .. position + count - 1 of the endless stream."""
        rows = [self._rows[unit] for unit in self._order.units(position, count)[1].tolist()]
        return self.of(rows)

    def of(self, rows: list[list[int]]) -> Batch:
        """The samples that are made of these sequences, row by row."""
        shape, table = (len(rows), self.context), self.table
        tokens = np.full(shape, table.split.end_of_text_id, dtype=np.int64)
        targets, weights = tokens.copy(), np.zeros(shape, dtype=np.float32)
        documents, positions = np.zeros((2, *shape), dtype=np.int32)
        for row, sequences in enumerate(rows):
            at = 0
            for number, sequence in enumerate(sequences):
                ids = table.tokens(sequence, self.context + 1)
                stop = at + len(ids) - 1
                tokens[row, at:stop], targets[row, at:stop] = ids[:-1], ids[1:]
                trained = table.trained(sequence, len(ids))[1:]
                share = table.weights[sequence] / (trained.sum() if self.per_example else 1)
                weights[row, at:stop] = trained * share
                documents[row, at:stop] = number
                positions[row, at:stop] = np.arange(stop - at)
                at = stop
            # Padding is a document of its own, which weighs nothing.
            documents[row, at:] = len(sequences)
            positions[row, at:] = np.arange(self.context - at)
        return Batch(tokens, targets, weights, documents, positions)


def _blocks(
    kept: NDArray[np.int64], sizes: NDArray[np.int64]
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    cuts = range(0, len(kept), PER_BLOCK)
    return [(kept[cut : cut + PER_BLOCK], sizes[cut : cut + PER_BLOCK]) for cut in cuts]


def _packed(sequences: NDArray[np.int64], sizes: NDArray[np.int64], room: int, pack: bool) -> list[list[int]]:
    """Rows of these sequences: each goes, longest first, where it leaves the least room."""
    if not pack:
        return [[sequence] for sequence in sequences.tolist()]
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (room, row), ascending
    for place in np.argsort(-sizes, kind="stable").tolist():
        size = int(sizes[place])
        found = bisect_left(free, (size, -1))
        left, row = free.pop(found) if found < len(free) else (room, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(int(sequences[place]))
        insort(free, (left - size, row))
    return rows
