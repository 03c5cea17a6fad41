"""JSON Lines: one object per line, plain, gzip or zstd, read as a stream."""

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import IO, Any

from data.config import DataConfig
from data.sources.decoding import document_from_string, printable
from data.sources.documents import Advance, Document, Drop, FileEntry
from data.sources.files import unreadable
from seedbed.errors import DataError

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")

# When this many first rows are all wrong, the file or the field name is, and reading on is waste.
HOPELESS_ROWS = 1000

READ_BYTES = 1024 * 1024


def is_jsonl(name: str) -> bool:
    """Whether a file of this name is read as JSON Lines."""
    return name.lower().endswith(SUFFIXES)


def read_jsonl(entry: FileEntry, config: DataConfig, advance: Advance) -> Iterator[Document | Drop]:
    """One document per row. Blank lines are no rows.

    Raises DataError when more than `max_malformed_share` of the rows are malformed or lack the
    text, or when a compressed file ends early.
    """
    num_rows = num_bad = 0
    example = ""
    for number, line in enumerate(_lines(entry, advance), start=1):
        if not line.strip():
            continue
        num_rows += 1
        row = _document_of(line, f"{entry.relative}:{number}", config)
        if isinstance(row, Drop) and row.reason in ("malformed", "missing_field"):
            num_bad += 1
            example = example or f"{row.source}: {row.detail}"
            if num_bad == num_rows == HOPELESS_ROWS:
                break
        yield row
    if num_bad > config.max_malformed_share * num_rows:
        raise DataError(
            f"{entry.path}: {num_bad:,} of the {num_rows:,} rows read are malformed or have no text, "
            f"more than data.max_malformed_share = {config.max_malformed_share:g} allows; first {example}",
            f"repair it, set data.text_field (now {config.text_field!r}), or raise data.max_malformed_share",
        )


def _document_of(line: bytes, where: str, config: DataConfig) -> Document | Drop:
    replaced = False
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        if config.on_undecodable == "fail":
            raise DataError(
                f"{where}: byte {error.start} of the line is not UTF-8 ({error.reason})",
                "repair the file, or set data.on_undecodable to drop or replace",
            ) from error
        if config.on_undecodable == "drop":
            return Drop(
                where, where, "undecodable", f"byte {error.start} of the line is not UTF-8 ({error.reason})"
            )
        text, replaced = line.decode("utf-8", errors="replace"), True
    try:
        row = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        return Drop(where, where, "malformed", printable(f"not JSON: {error}"))
    if not isinstance(row, dict):
        return Drop(where, where, "malformed", f"not an object but {type(row).__name__}")
    id = _id_of(row, where, config.id_field)
    value = row.get(config.text_field)
    if not isinstance(value, str):
        problem = "is not a string" if config.text_field in row else "is missing"
        return Drop(id, where, "missing_field", f"field {config.text_field!r} {problem}")
    meta = {key: item for key, item in row.items() if key not in (config.text_field, config.id_field)}
    return document_from_string(value, config.on_undecodable, id, where, meta, replaced)


def _id_of(row: dict[str, Any], where: str, field: str) -> str:
    value = row.get(field)
    return printable(str(value)) if isinstance(value, str | int) and value != "" else where


def _lines(entry: FileEntry, advance: Advance) -> Iterator[bytes]:
    name = entry.relative.lower()
    try:
        with open(entry.path, "rb") as file:
            if name.endswith(".gz"):
                yield from gzip.GzipFile(fileobj=_Counted(file, advance), mode="rb")
            elif name.endswith(".zst"):
                yield from _split_lines(_zstd_chunks(file, entry, advance))
            else:
                for line in file:
                    advance(len(line))
                    yield line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(entry, str(error)) from error
    except OSError as error:
        raise unreadable(entry, error) from error


class _Counted:
    """The part of a binary file that `gzip` uses, reporting what is read."""

    def __init__(self, file: IO[bytes], advance: Advance) -> None:
        self._file, self._advance = file, advance

    def read(self, size: int = -1) -> bytes:
        block = self._file.read(size)
        self._advance(len(block))
        return block

    def seek(self, offset: int) -> int:
        return self._file.seek(offset)


def _zstd_chunks(file: IO[bytes], entry: FileEntry, advance: Advance) -> Iterator[bytes]:
    """The content of one or more zstd frames. (`stream_reader` ends a cut frame without an error.)"""
    try:
        import zstandard
    except ImportError as error:
        raise DataError(
            f"reading {entry.path} needs the zstandard package",
            "pip install 'seedbed[zstd]', or decompress it",
        ) from error
    frame = None
    try:
        while block := file.read(READ_BYTES):
            advance(len(block))
            while block:
                if frame is None:
                    frame = zstandard.ZstdDecompressor().decompressobj()
                yield frame.decompress(block)
                block = frame.unused_data if frame.eof else b""
                frame = None if frame.eof else frame
    except zstandard.ZstdError as error:
        raise _damaged(entry, str(error)) from error
    if frame is not None:
        raise _damaged(entry, "the last frame is cut off")


def _split_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Lines with their line ends; only the current line's pieces are held."""
    pieces: list[bytes] = []
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        pieces.append(first)
        for piece in others:
            yield b"".join(pieces) + b"\n"
            pieces = [piece]
    if last := b"".join(pieces):
        yield last


def _damaged(entry: FileEntry, detail: str) -> DataError:
    return DataError(f"{entry.path} is damaged or cut off: {detail}", "fetch or compress the file again")
