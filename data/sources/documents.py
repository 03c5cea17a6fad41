"""What every source yields, and what it must offer."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Document:
    """One text. `source` is the file, and line where there is one, that it was read from."""

    text: str
    id: str
    source: str
    meta: dict[str, Any] = field(default_factory=dict)
    replaced: bool = False
    """Whether bytes that are not UTF-8 text were replaced by U+FFFD."""


@dataclass(frozen=True, slots=True)
class Drop:
    """One document that was not taken: `reason` is counted, `detail` is for a person."""

    id: str
    source: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of a source; `relative` (with "/") is its name in ids, receipts and messages."""

    relative: str
    path: Path
    size: int
    mtime_ns: int


Advance = Callable[[int], None]
"""Called with the number of bytes just read from disk, for progress."""


class Source(Protocol):
    """A set of documents that can be read again and again in the same order."""

    name: str
    """Short, fit for a folder name."""

    @property
    def total_bytes(self) -> int:
        """What one reading will have told `advance` in all."""

    def describe(self) -> dict[str, Any]:
        """What was asked, for the manifest; the same wherever and whenever the input is the same."""

    def identity(self) -> dict[str, Any]:
        """What a cached build depends on: changes when a file is added, removed or modified."""

    def documents(self, advance: Advance) -> Iterator[Document | Drop]:
        """All documents, in order."""
