"""A piece is what a worker can read alone: a file, or a range of one. A part is a list of pieces.

Pieces are plain data, so that a part can travel to another process or machine as JSON.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any, Self

from data.config import DataConfig
from seedbed.errors import DataError


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes start .. stop-1 of a file, or the rows or shard of a Hugging Face dataset with such numbers."""

    kind: str
    """How it is read: a key of `data.sources.reading.KINDS`."""
    relative: str
    """The file's name, with "/", in ids, receipts and messages."""
    path: str
    """A local path, an fsspec URL, or the name of a Hugging Face dataset."""
    size: int
    """The bytes that reading it tells `advance`."""
    start: int
    stop: int
    file_bytes: int
    """The size of the whole file."""
    mtime_ns: int = 0
    """When a local file was modified."""
    version: str = ""
    """What tells one version of a remote file from another: its ETag, checksum or date."""
    first_line: int = 0
    """Lines, or passages, of the file that come before."""

    def cut(self, start: int, stop: int, first_line: int = 0) -> Self:
        """Bytes start .. stop-1 of the same file."""
        return replace(self, size=stop - start, start=start, stop=stop, first_line=first_line)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Self:
        return cls(**row)


def group_pieces(pieces: Iterable[Piece], part_bytes: int) -> list[list[Piece]]:
    """Consecutive pieces together, up to `part_bytes`; a larger piece is a part of its own."""
    parts: list[list[Piece]] = []
    filled = 0
    for piece in pieces:
        if not parts or filled + piece.size > part_bytes:
            parts.append([])
            filled = 0
        parts[-1].append(piece)
        filled += piece.size
    return parts


def even_ranges(total: int, num_ranges: int) -> list[tuple[int, int]]:
    """0 .. total-1 as `num_ranges` ranges (start, stop) that differ by one at most."""
    cuts = [total * number // num_ranges for number in range(num_ranges + 1)]
    return list(pairwise(cuts))


@dataclass(slots=True)
class Tally:
    """How many rows of a file were read, and how many of them were malformed or had no text."""

    rows: int = 0
    bad: int = 0
    example: str = ""
    """The first bad row: where it is, and what is wrong."""

    def note_bad(self, example: str) -> None:
        self.bad += 1
        self.example = self.example or example

    def merged(self, earlier: dict[str, Any] | None) -> "Tally":
        """This tally together with that, as JSON, of an earlier piece of the same file, if there is one."""
        first = Tally(**earlier) if earlier else Tally()
        return Tally(first.rows + self.rows, first.bad + self.bad, first.example or self.example)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def check_malformed(parts: Iterable[dict[str, dict[str, Any]]], config: DataConfig) -> None:
    """Raise DataError for the first file with more bad rows than `max_malformed_share` of its rows.

    `parts` holds, for each part in order, the tallies (as JSON) of the files that it has pieces of.
    """
    files: dict[str, dict[str, Any]] = {}
    for part in parts:
        for relative, tally in part.items():
            files[relative] = Tally(**tally).merged(files.get(relative)).as_json()
    for relative, whole in files.items():
        if whole["bad"] > config.max_malformed_share * whole["rows"]:
            raise DataError(
                f"{relative}: {whole['bad']:,} of the {whole['rows']:,} rows read are malformed or have no "
                f"text, more than data.max_malformed_share = {config.max_malformed_share:g} allows; "
                f"first {whole['example']}",
                f"repair it, set data.text_field (now {config.text_field!r}), "
                "or raise data.max_malformed_share",
            )
