"""Splits for tests of the order: real ones of given documents, and one of any size that is not there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.location import Location
from data.shard_writer import SplitWriter, provenance_row
from data.split import Split, shard_table
from seedbed.files import canonical_json
from seedbed.randomness import generator

END = 0


def write_split(
    folder: Path,
    documents: Sequence[Sequence[int]],
    *,
    shard_tokens: int = 2000,
    end: int = END,
    vocab_size: int = 60_000,
) -> Split:
    """A real split of these documents, each of ids without the end-of-text id, in several shards."""
    part = folder / "part-00000"
    part.mkdir(parents=True)
    writer = SplitWriter(part, part=0, split="train", vocab_size=vocab_size, shard_tokens=shard_tokens)
    with writer:
        ended = [np.array([*document, end]) for document in documents]
        provenances = [provenance_row(str(number), "test", "") for number in range(len(ended))]
        ends = np.cumsum([len(tokens) for tokens in ended])
        writer.write(provenances, ends, np.concatenate(ended), ends)
    rows = shard_table(writer.rows)
    return Split(Location(folder), "train", rows, "uint16", end)


def numbered_documents(lengths: Sequence[int]) -> list[list[int]]:
    """Documents of these lengths (with their end) in which every token has an id of its own."""
    stops = np.cumsum(lengths).tolist()
    return [list(range(stop - length + 1, stop)) for stop, length in zip(stops, lengths, strict=True)]


def web_lengths(num_documents: int, mean: int, seed: int = 0) -> list[int]:
    """Lengths as of web pages: most short, some long; at least 2, with the end-of-text id."""
    drawn = generator(seed, "lengths").lognormal(np.log(mean) - 0.5, 1, size=num_documents)
    return (drawn.astype(int) + 2).tolist()


@dataclass
class Simulated:
    """A split of any size whose token i is i + 1, with a document every `document_tokens`; on no disk."""

    num_tokens: int
    document_tokens: int = 1000
    name: str = "train"
    end_of_text_id: int = END

    @property
    def num_documents(self) -> int:
        return -(-self.num_tokens // self.document_tokens)

    def tokens(self, start, stop):
        assert 0 <= start <= stop <= self.num_tokens
        return np.arange(start + 1, stop + 1)

    def tokens_into(self, start, out):
        out[:] = self.tokens(start, start + len(out))

    def documents_starting_in(self, start, stop):
        assert 0 <= start <= stop <= self.num_tokens
        first = -(-start // self.document_tokens) * self.document_tokens
        return np.arange(first, stop, self.document_tokens)


def write_examples(
    folder: Path,
    sizes: Sequence[tuple[int, int]],
    *,
    groups: Sequence[int] = (),
    tokens: Sequence[Sequence[int]] = (),
    margins: Sequence[float] = (),
    sample_weights: Sequence[float] = (),
    ends: bool = False,
) -> Split:
    """A real split of sequences of (prompt, answer) tokens, in examples of so many candidates, the best
    first.

    Tokens are numbered through unless they are given; with `ends` the last of an answer is the end of text.
    """
    part = folder / "part-00000"
    part.mkdir(parents=True)
    groups = groups or [1] * len(sizes)
    members = [(group, place, size) for group, size in enumerate(groups) for place in range(size)]
    writer = SplitWriter(part, part=0, split="train", vocab_size=60_000, shard_tokens=2000)
    with writer:
        at = 1
        for number, (prompt, answer) in enumerate(sizes):
            group, place, size = members[number]
            row = {"group": [place, size], "id": str(number), "rank": place, "sha256": "", "source": "test"}
            row["spans"] = [[prompt, prompt + answer]]
            row |= {"margin": margins[group]} if margins else {}
            row |= {"sample_weight": sample_weights[group]} if sample_weights else {}
            ids = list(tokens[number]) if tokens else list(range(at, at + prompt + answer))
            at += len(ids)
            if ends:
                ids[-1] = END
            end = np.array([len(ids) + 1])
            writer.write([canonical_json(row)], end, np.array([*ids, END]), end)
    return Split(Location(folder), "train", shard_table(writer.rows), "uint16", END)
