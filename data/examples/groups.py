"""The candidates of one prompt as one sample: what reward models and direct methods read at a position.

A sample is an example with all its candidates, so that their scores meet in one forward pass. For methods
that judge answers one by one (KTO) a sample is a single answer, and beside it the same prompt with the answer
of another example, from which such a method estimates how far the policy has moved.

Shapes: B samples, K candidates, T = context, U samples of an epoch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.examples.supervised import TooLong, fitting
from data.examples.table import ExampleTable, nothing_fits
from data.order import EpochOrder

ABSENT = -1
"""The rank of a candidate that a sample does not have."""


@dataclass(frozen=True)
class GroupBatch:
    """What is learned from at once."""

    tokens: NDArray[np.int64]
    """[B, K, T] padded after the end; whether a token is padding, `lengths` says, not its id."""
    lengths: NDArray[np.int32]
    """[B, K] tokens of each candidate; 0: there is none."""
    trained: NDArray[np.bool_]
    """[B, K, T] whether the token belongs to the answer."""
    ranks: NDArray[np.int32]
    """[B, K] 0 is the best, -1 is absent."""
    margins: NDArray[np.float32]
    """[B] by how much more the better answer of a pair is worth, where that is known; else 0."""
    weights: NDArray[np.float32]
    """[B] how much each sample counts."""
    reference: NDArray[np.float32]
    """[B, K] log-probability of each answer under the reference, where one is used; else 0."""

    def __len__(self) -> int:
        return len(self.tokens)


class GroupStream:
    """Samples of candidates, epoch after epoch without end. TooLittleData when none fits.

    An example is left out when `too_long` drops one of its candidates, or when those that are cut become the
    same. With `mismatched` samples are single answers, each beside a mismatched one. `reference` [U, K] are
    log-probabilities by sample of the epoch, in the order of `unit`.
    """

    def __init__(
        self,
        table: ExampleTable,
        context: int,
        seed: int,
        *,
        too_long: TooLong = "drop",
        mismatched: bool = False,
        reference: NDArray[np.float32] | None = None,
        shuffle: bool = True,
    ) -> None:
        self.table, self.context, self.mismatched, self.reference = table, context, mismatched, reference
        self.fitting = fitting(table, context, too_long)
        is_kept = np.zeros(table.num_sequences, dtype=bool)
        is_kept[self.fitting.kept] = True
        self.num_cut_alike = 0
        self.units: list[tuple[int, ...]] = []
        """The sequences of each sample of an epoch."""
        if mismatched:
            self.units = [(sequence,) for sequence in self.fitting.kept.tolist()]
        else:
            for first, stop in zip(table.firsts[:-1].tolist(), table.firsts[1:].tolist(), strict=True):
                if is_kept[first:stop].all():
                    self._take(tuple(range(first, stop)))
        if not self.units:
            raise nothing_fits(table.split, context, self.described() or "it is empty")
        self.num_candidates = 2 if mismatched else max(map(len, self.units))
        self.num_samples = len(self.units)
        self._order = EpochOrder(self.num_samples, seed, shuffle)

    def _take(self, unit: tuple[int, ...]) -> None:
        if (self.table.lengths[list(unit)] > self.context).any():
            texts = {tuple(self.table.tokens(sequence, self.context).tolist()) for sequence in unit}
            if len(texts) == 1 < len(unit):
                self.num_cut_alike += 1
                return
        self.units.append(unit)

    def described(self) -> str:
        """What does not take part, or only in part; empty when all do."""
        told = [self.fitting.described()] if self.fitting.described() else []
        if self.num_cut_alike:
            told.append(f"{self.num_cut_alike:,} whose candidates are the same when truncated are left out")
        return ", ".join(told)

    def batch(self, position: int, count: int) -> GroupBatch:
        """Samples position .. position + count - 1 of the endless stream."""
        return self.of(self._order.units(position, count)[1].tolist())

    def of(self, numbers: Sequence[int]) -> GroupBatch:
        """These samples of an epoch."""
        table, shape = self.table, (len(numbers), self.num_candidates)
        tokens = np.full((*shape, self.context), table.split.end_of_text_id, dtype=np.int64)
        trained = np.zeros(tokens.shape, dtype=bool)
        lengths, ranks = np.zeros(shape, dtype=np.int32), np.full(shape, ABSENT, dtype=np.int32)
        margins, weights = np.zeros((2, len(numbers)), dtype=np.float32)
        reference = np.zeros(shape, dtype=np.float32)
        for row, number in enumerate(numbers):
            unit = self.units[number]
            for place, (ids, mask) in enumerate(self._candidates(number)):
                tokens[row, place, : len(ids)], trained[row, place, : len(ids)] = ids, mask
                lengths[row, place] = len(ids)
            ranks[row, : len(unit)] = table.ranks[list(unit)]
            margins[row], weights[row] = table.margins[unit[0]], table.weights[unit[0]]
            if self.reference is not None:
                reference[row] = self.reference[number]
        return GroupBatch(tokens, lengths, trained, ranks, margins, weights, reference)

    def _candidates(self, number: int) -> list[tuple[NDArray[np.int64], NDArray[np.bool_]]]:
        found = []
        for sequence in self.units[number]:
            ids = self.table.tokens(sequence, self.context)
            found.append((ids, self.table.trained(sequence, len(ids))))
        return [*found, self._mismatch(number)] if self.mismatched else found

    def _mismatch(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The prompt of a sample with the answer of the next example that has one, cut where it does not
        fit."""
        table, own = self.table, self.units[number][0]
        other = self._next_example(number)
        begin, other_begin = (int(table.spans_of(sequence)[0, 0]) for sequence in (own, other))
        ids = np.concatenate([table.tokens(own)[:begin], table.tokens(other)[other_begin:]])[: self.context]
        mask = np.zeros(len(ids), dtype=bool)
        mask[begin:] = True
        return ids, mask

    def _next_example(self, number: int) -> int:
        """A sequence of another example than that of sample `number`; its own when there is no other."""
        sequence = self.units[number][0]
        after = int(self.table.firsts[self.table.firsts.searchsorted(sequence, side="right")])
        kept = self.fitting.kept
        place = int(kept.searchsorted(after)) % len(kept)
        return int(kept[place])
