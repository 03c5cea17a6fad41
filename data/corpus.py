"""A source, read once to learn what is in it and again to use it.

The first reading (`survey`) holds of each document only its hash, size, id and signature, under 1 KB,
so a corpus need not fit in memory. Later readings (`kept_documents`) give the documents that were
kept, in the same order, and notice when the files changed in between.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from data.near_duplicates import NUM_PERMUTATIONS, MinHasher, group_near_duplicates, recall_threshold
from data.sources import Document, Drop, Source
from data.sources.documents import Advance
from seedbed.errors import DataError


@dataclass
class Corpus:
    """What is known of the documents that are kept, in order, and of those that are not."""

    numbers: dict[bytes, int] = field(default_factory=dict)
    """SHA-256 of a document's UTF-8 text -> its place among those kept."""
    ids: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    """UTF-8 bytes of each document."""
    drops: Counter[str] = field(default_factory=Counter)
    """Reason -> documents."""
    num_replaced: int = 0
    groups: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """[N]: the same label for documents that are near-copies of each other."""

    def __len__(self) -> int:
        return len(self.ids)


def survey(source: Source, threshold: float, on_drop: Callable[[Drop], None], advance: Advance) -> Corpus:
    """Read all of `source`; what is not taken, exact copies included, goes to `on_drop`.

    Documents of at least `threshold` similarity are put in one group. Groups are made for the
    held-out split, where a missed near-copy is a leak and a needless join costs nothing: 56 bands of
    2 rows miss 1 pair in 10 million at similarity 0.5, and signatures are compared with a threshold
    that allows for their error.
    """
    corpus, hasher, signatures = Corpus(), MinHasher(), bytearray()

    def drop(row: Drop) -> None:
        corpus.drops[row.reason] += 1
        on_drop(row)

    for item in source.documents(advance):
        if isinstance(item, Drop):
            drop(item)
            continue
        digest, num_bytes = _identity(item)
        first = corpus.numbers.setdefault(digest, len(corpus))
        if first < len(corpus):
            drop(Drop(item.id, item.source, "exact_duplicate", f"the same text as {corpus.ids[first]}"))
            continue
        corpus.ids.append(item.id)
        corpus.sizes.append(num_bytes)
        if item.replaced:
            corpus.num_replaced += 1
            # Not a drop, but listed beside them: the text is no longer quite what was in the file.
            on_drop(Drop(item.id, item.source, "replaced", "kept, with U+FFFD for what is not UTF-8 text"))
        signatures += hasher.signature(item.text).tobytes()
    if not len(corpus):
        found = ", ".join(f"{count:,} {reason}" for reason, count in sorted(corpus.drops.items()))
        raise DataError(
            f"source {source.name} has no document to use (dropped: {found or 'none, it is empty'})",
            "point data.source at text, and see data.pattern, data.text_field and data.on_undecodable",
        )
    corpus.groups = group_near_duplicates(
        np.frombuffer(signatures, dtype=np.uint32).reshape(len(corpus), NUM_PERMUTATIONS),
        bands=56,
        rows=2,
        threshold=recall_threshold(threshold),
    )
    return corpus


@dataclass(frozen=True, slots=True)
class Kept:
    """A document of a corpus with its place in it."""

    number: int
    document: Document
    sha256: bytes
    num_bytes: int


def kept_documents(source: Source, corpus: Corpus, advance: Advance) -> Iterator[Kept]:
    """The documents of `corpus` in order, read again; DataError when they are not what they were."""
    expected = 0
    for item in source.documents(advance):
        if isinstance(item, Drop):
            continue
        digest, num_bytes = _identity(item)
        number = corpus.numbers.get(digest, -1)
        if number == expected:
            yield Kept(number, item, digest, num_bytes)
            expected += 1
        elif not 0 <= number < expected:
            raise _changed(item.source)
    if expected != len(corpus):
        raise _changed(corpus.ids[expected])


def _identity(document: Document) -> tuple[bytes, int]:
    utf8 = document.text.encode()
    return hashlib.sha256(utf8).digest(), len(utf8)


def _changed(where: str) -> DataError:
    return DataError(
        f"{where} changed while the dataset was built", "build again when nothing writes to the source"
    )
