"""What every source yields, and what it must offer."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from data.sources.pieces import Piece


@dataclass(frozen=True, slots=True)
class Document:
    """One text. `source` is the file, and line where there is one, that it was read from."""

    text: str
    id: str
    source: str
    meta: dict[str, Any] = field(default_factory=dict)
    """What else its row says, such as a label."""
    replaced: bool = False
    """Whether bytes that are not UTF-8 text were replaced by U+FFFD."""


@dataclass(frozen=True, slots=True)
class Drop:
    """One document that was not taken: `reason` is counted, `detail` is for a person."""

    id: str
    source: str
    reason: str
    detail: str


Advance = Callable[[int], None]
"""Called with the number of bytes just read from disk, for progress."""


class Source(Protocol):
    """A set of documents that can be read again and again in the same order."""

    name: str
    """Short, fit for a folder name."""

    @property
    def total_bytes(self) -> int:
        """What one reading will have told `advance` in all; 0 when nobody can tell beforehand."""

    @property
    def drops(self) -> list[Drop]:
        """What was passed over before anything was read: hidden names, pipes, dead links."""

    def describe(self) -> dict[str, Any]:
        """What was asked, for the manifest; the same wherever and whenever the input is the same."""

    def identity(self) -> dict[str, Any]:
        """What a cached build depends on: changes when a file is added, removed or modified."""

    def parts(self, part_bytes: int) -> list[list[Piece]]:
        """The source cut into parts of about `part_bytes`, in order: `read_piece` over all pieces of all
        parts gives the documents of `documents`."""

    def documents(self, advance: Advance) -> Iterator[Document | Drop]:
        """All drops, then all documents, in order; DataError when too many rows of a file are malformed."""
