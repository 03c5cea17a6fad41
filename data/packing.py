"""Packing: samples of whole documents laid side by side, few of them cut, as a pure function of position.

Rows of C = context + 1 tokens give T = context inputs and as many targets, and every token lies in one
row. Block b of 256 rows is made of exactly the tokens b * 256 C .. (b + 1) * 256 C - 1 of the split, so
that any row is found in constant time and any block can be planned alone, when it is first asked for.

Inside a block, a document longer than a row first gives off whole rows; what is left of all documents
goes, longest first, into the row with the least room that takes it (best fit: Ding et al. 2024, "Fewer
Truncations Improve Language Modeling", arXiv:2404.10830) or into the first row that takes it. A document
that fits nowhere fills the holes: in pieces, so that no token is lost ("split"), or with its beginning
while the rest is dropped and other holes are padded ("crop").

Shapes: B samples, T = context, C = T + 1 tokens per row, R rows and P pieces of a block.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from data.batches import Batch, assemble, too_few_tokens
from data.order import BLOCKS_PER_POOL, UNITS_PER_BLOCK, EpochOrder
from data.split import Split

Method = Literal["best-fit", "first-fit-decreasing"]
Overflow = Literal["split", "crop"]

# As wide as the blocks of the order, so that a pool of the order is made of as many plans.
ROWS_PER_BLOCK = UNITS_PER_BLOCK
# The last pool of an order holds up to twice as many blocks as the others.
PLANS_KEPT = 2 * BLOCKS_PER_POOL


Piece = tuple[int, int]
"""Begin in the block and length, in tokens."""


@dataclass(frozen=True)
class Plan:
    """How the tokens of a block lie in its rows. Pieces are in the order of rows, then of the corpus."""

    first: list[int]
    """[R + 1] the first piece of each row, and P."""
    begins: NDArray[np.int32]
    """[P] where the piece begins in the block, in tokens."""
    lengths: NDArray[np.int32]
    """[P] tokens of the piece."""
    last: NDArray[np.int32]
    """[P] where its last token lies in its row."""
    leads_on: NDArray[np.bool_]
    """[P] whether it ends a document and the next piece of the row begins one, as in running text."""


class PackedStream:
    """Rows of packed documents, epoch after epoch without end, in an order keyed like that of windows.

    An end that does not lead to its target in the text weighs 0: where a piece was cut, before one that
    was, padding; with `within_documents` every last token of a document too, and positions count from
    the start of each piece. Up to T tokens at the end of the split are left out.
    """

    def __init__(
        self,
        split: Split,
        context: int,
        seed: int,
        method: Method = "best-fit",
        overflow: Overflow = "split",
        *,
        within_documents: bool = False,
        shuffle: bool = True,
    ) -> None:
        if context < 1:
            raise ValueError(f"context must be at least 1, not {context}")
        self.split, self.context, self.seed = split, context, seed
        self.method, self.overflow, self.within_documents = method, overflow, within_documents
        self._capacity = context + 1
        self.num_samples = split.num_tokens // self._capacity
        if self.num_samples < 1:
            raise too_few_tokens(split, context)
        self.num_blocks = -(-self.num_samples // ROWS_PER_BLOCK)
        self._order = EpochOrder(self.num_samples, seed, shuffle)
        self._plan = lru_cache(maxsize=PLANS_KEPT)(self._make_plan)

    def batch(self, position: int, count: int) -> Batch:
        """Samples position .. position + count - 1 of the endless stream."""
        shape = (count, self._capacity)
        rows = np.full(shape, self.split.end_of_text_id, dtype=np.int64)
        # Whether the token is the last of its piece, and whether its target does not follow from it.
        ends, unlearned = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
        lasts: list[NDArray[Any]] = [np.empty(0, dtype=np.int64)]
        lead_on: list[NDArray[Any]] = [np.empty(0, dtype=bool)]
        for row, number in enumerate(self._order.units(position, count)[1].tolist()):
            block, place = divmod(number, ROWS_PER_BLOCK)
            plan, start = self._plan(block), self._block_range(block)[0]
            pieces = slice(plan.first[place], plan.first[place + 1])
            at = 0
            for begin, length in zip(
                plan.begins[pieces].tolist(), plan.lengths[pieces].tolist(), strict=True
            ):
                self.split.tokens_into(start + begin, rows[row, at : at + length])
                at += length
            unlearned[row, at:] = True
            lasts.append(plan.last[pieces] + row * self._capacity)
            lead_on.append(plan.leads_on[pieces])
        last = np.concatenate(lasts)
        ends.reshape(-1)[last] = True
        unlearned.reshape(-1)[last] = True if self.within_documents else ~np.concatenate(lead_on)
        return assemble(rows, ends[:, :-1], unlearned[:, :-1], self.within_documents)

    def plan(self, block: int) -> Plan:
        """The plan of one block."""
        return self._plan(block)

    def rates(self, num_blocks: int = 64) -> dict[str, Any]:
        """How packing fares, over at most `num_blocks` blocks spread evenly over the split.

        Shares of tokens: cropped, padded. Shares of the documents that begin in these blocks: cut (not in
        one piece in one row), longer than a row (cut whatever one does), cut by chunking without packing.
        """
        blocks = np.unique(np.linspace(0, self.num_blocks - 1, min(num_blocks, self.num_blocks)).astype(int))
        totals = np.sum([self._count(int(block)) for block in blocks], axis=0).tolist()
        tokens, lost, documents, cut, longer, chunked = totals
        return {
            "blocks": len(blocks),
            "of_blocks": self.num_blocks,
            "tokens": tokens,
            "documents": documents,
            # As many tokens as rows hold come in, so what is lost is missing.
            "cropped_tokens": lost / tokens,
            "padded_tokens": lost / tokens,
            "cut_documents": cut / max(1, documents),
            "documents_longer_than_row": longer / max(1, documents),
            "cut_documents_without_packing": chunked / max(1, documents),
        }

    def _block_range(self, block: int) -> tuple[int, int]:
        """The tokens of the split that a block is made of."""
        width = ROWS_PER_BLOCK * self._capacity
        return block * width, min((block + 1) * width, self.num_samples * self._capacity)

    def _edges(self, block: int) -> NDArray[np.int64]:
        """Where documents begin in a block, and its size if one ends with it."""
        start, stop = self._block_range(block)
        if stop < self.split.num_tokens:
            return self.split.documents_starting_in(start, stop + 1) - start
        return np.append(self.split.documents_starting_in(start, stop), stop) - start

    def _make_plan(self, block: int) -> Plan:
        start, stop = self._block_range(block)
        num_rows = (stop - start) // self._capacity
        return plan_block(self._edges(block), num_rows, self._capacity, self.method, self.overflow)

    def _count(self, block: int) -> tuple[int, int, int, int, int, int]:
        """Tokens, lost ones; documents that begin here, and how many are cut, long, cut by chunking."""
        start, stop = self._block_range(block)
        plan, size, edges = self._plan(block), stop - start, self._edges(block)
        starts = edges[edges < size]
        lengths = np.diff(starts, append=size)
        pieces = plan.begins.astype(np.int64) * (size + 1) + plan.lengths
        whole = np.isin(starts * (size + 1) + lengths, pieces)
        chunked = starts // self._capacity != (starts + lengths - 1) // self._capacity
        if len(starts) and edges[-1] < size:
            # It goes on in the next block.
            whole[-1], chunked[-1] = False, True
        return (
            size,
            size - int(plan.lengths.sum()),
            len(starts),
            int((~whole).sum()),
            int((lengths > self._capacity).sum()),
            int(chunked.sum()),
        )


def plan_block(
    edges: NDArray[np.int64], num_rows: int, capacity: int, method: Method, overflow: Overflow
) -> Plan:
    """Pack a block of `num_rows * capacity` tokens in which documents begin at `edges`, ascending.

    What comes before the first edge is the end of an earlier document; an edge at the very end of the
    block says that no document goes on after it.
    """
    size = num_rows * capacity
    begins = np.unique(np.append(edges[edges < size], 0))
    lengths = np.diff(begins, append=size)
    num_full = lengths // capacity
    # Whole rows of the documents that fill some.
    full_begins = np.repeat(begins, num_full) + capacity * _counting(num_full)
    rows: list[list[Piece]] = [[(begin, capacity)] for begin in full_begins.tolist()]
    rows += [[] for _ in range(num_rows - len(rows))]
    rest_begins, rest = begins + num_full * capacity, lengths % capacity
    longest_first = np.lexsort((rest_begins, -rest))
    longest_first = longest_first[rest[longest_first] > 0]
    pieces = list(zip(rest_begins[longest_first].tolist(), rest[longest_first].tolist(), strict=True))
    place = _best_fit if method == "best-fit" else _first_fit
    room, homeless = place(pieces, rows, len(full_begins), capacity)
    _fill_holes(homeless, rows, room, overflow)
    return _plan_of(rows, edges)


def _plan_of(rows: list[list[Piece]], edges: NDArray[np.int64]) -> Plan:
    """The plan that lays these pieces into these rows."""
    num_pieces = [len(row) for row in rows]
    flat = np.array([piece for row in rows for piece in sorted(row)], dtype=np.int32)
    begins, lengths = flat[:, 0].copy(), flat[:, 1].copy()
    first = np.cumsum([0, *num_pieces])
    stops = np.cumsum(lengths)
    last = stops - 1 - np.repeat(stops[first[:-1]] - lengths[first[:-1]], num_pieces)
    leads_on = np.isin(begins + lengths, edges) & np.append(np.isin(begins[1:], edges), False)
    leads_on[first[1:] - 1] = False
    return Plan(first.tolist(), begins, lengths, last.astype(np.int32), leads_on)


def _best_fit(
    pieces: list[Piece], rows: list[list[Piece]], num_taken: int, capacity: int
) -> tuple[dict[int, int], list[Piece]]:
    """Put each piece where it leaves least room; the room left by row, and the pieces that fit nowhere."""
    num_rows = len(rows)
    # Room and row in one number, so that a sorted list finds the least room that is enough.
    spaces = [capacity * num_rows + row for row in range(num_taken, num_rows)]
    homeless = []
    for begin, length in pieces:
        found = bisect_left(spaces, length * num_rows)
        if found == len(spaces):
            homeless.append((begin, length))
            continue
        space = spaces.pop(found) - length * num_rows
        rows[space % num_rows].append((begin, length))
        if space >= num_rows:
            insort(spaces, space)
    return {space % num_rows: space // num_rows for space in spaces}, homeless


def _first_fit(
    pieces: list[Piece], rows: list[list[Piece]], num_taken: int, capacity: int
) -> tuple[dict[int, int], list[Piece]]:
    """Put each piece into the first row that has room for it; returns what `_best_fit` does."""
    room = np.full(len(rows), capacity)
    room[:num_taken] = 0
    homeless = []
    for begin, length in pieces:
        row = int((room >= length).argmax())
        if room[row] < length:
            homeless.append((begin, length))
            continue
        rows[row].append((begin, length))
        room[row] -= length
    return {int(row): int(room[row]) for row in np.flatnonzero(room)}, homeless


def _fill_holes(
    homeless: list[Piece], rows: list[list[Piece]], room: dict[int, int], overflow: Overflow
) -> None:
    """Put the pieces that fit nowhere, longest first, into the holes, largest first."""
    holes = sorted(room.items(), key=lambda hole: (-hole[1], hole[0]))
    for begin, length in homeless:
        while length and holes:
            row, space = holes.pop(0)
            taken = min(space, length)
            rows[row].append((begin, taken))
            begin, length, space = begin + taken, length - taken, space - taken
            if overflow == "crop":
                break
            if space:
                holes.insert(0, (row, space))


def _counting(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """0 .. n-1 for each n of `counts`, one after the other."""
    total = np.cumsum(counts)
    return np.arange(total[-1] if len(total) else 0) - np.repeat(total - counts, counts)
