"""JSON Lines: one object per line, plain, gzip or zstd, read as a stream."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import accumulate, pairwise
from typing import Any

from data.config import DataConfig
from data.sources.decoding import (
    document_from_row,
    document_from_string,
    id_of,
    printable,
    too_long,
    undecodable,
)
from data.sources.documents import Advance, Document, Drop
from data.sources.pieces import Piece, Tally, check_malformed
from data.sources.streams import COMPRESSED, bounded_lines, open_decompressed, open_piece, pass_over_line
from data.storage import READ_BYTES

SUFFIXES = (".jsonl", *(f".jsonl{suffix}" for suffix in COMPRESSED))

# When this many first rows of a file are all wrong, the file or the field name is, and reading on is waste.
HOPELESS_ROWS = 1000

# Ranges of a file whose lines are counted at once: what hides the latency of a remote file.
PLANNING_THREADS = 8


def plan_jsonl(whole: Piece, part_bytes: int, config: DataConfig) -> Iterator[Piece]:
    """Ranges of whole lines, of about `part_bytes` each, that know how many lines come before them.

    A plain file that is larger is read for that; a compressed one is not cut.
    """
    if whole.file_bytes <= part_bytes or whole.relative.lower().endswith(COMPRESSED):
        yield whole
        return
    with ThreadPoolExecutor(PLANNING_THREADS) as pool:
        wanted = range(part_bytes, whole.file_bytes, part_bytes)
        starts = sorted({0, whole.file_bytes, *pool.map(lambda offset: _line_start(whole, offset), wanted)})
        counts = pool.map(lambda cut: _count_lines(whole, *cut), pairwise(starts))
        lines_before = accumulate(counts, initial=0)
        for (start, stop), first_line in zip(pairwise(starts), lines_before, strict=False):
            yield whole.cut(start, stop, first_line)


def _line_start(whole: Piece, offset: int) -> int:
    """The first byte of a line at or past `offset`, or the end of the file."""
    with open_piece(whole) as file:
        file.seek(offset - 1)
        return offset - 1 + pass_over_line(file)


def _count_lines(whole: Piece, start: int, stop: int) -> int:
    count = 0
    with open_piece(whole) as file:
        file.seek(start)
        while start < stop and (block := file.read(min(READ_BYTES, stop - start))):
            count += block.count(b"\n")
            start += len(block)
    return count


def read_jsonl(piece: Piece, config: DataConfig, advance: Advance, tally: Tally) -> Iterator[Document | Drop]:
    """One document per row. Blank lines are no rows.

    Raises DataError when the file is damaged, or when all of its first rows are malformed.
    """
    lines = _lines(piece, config.max_document_bytes, advance)
    for number, (line, num_bytes) in enumerate(lines, start=piece.first_line + 1):
        where = f"{piece.relative}:{number}"
        if line is None:
            tally.rows += 1
            yield too_long(where, where, num_bytes, config.max_document_bytes)
        elif not line.isspace():
            tally.rows += 1
            row = _document_of(line, where, config)
            if isinstance(row, Drop) and row.reason in ("malformed", "missing_field"):
                tally.note_bad(f"{row.source}: {row.detail}")
                # Only of a file's beginning, so that cutting the file changes nothing.
                if tally.bad == tally.rows == HOPELESS_ROWS and piece.start == 0:
                    check_malformed([{piece.relative: tally.as_json()}], config)
            yield row


def _lines(piece: Piece, max_bytes: int, advance: Advance) -> Iterator[tuple[bytes | None, int]]:
    if piece.relative.lower().endswith(COMPRESSED):
        with open_decompressed(piece, advance) as file:
            yield from bounded_lines(file, max_bytes)
        return
    left = piece.stop - piece.start
    with open_piece(piece) as file:
        file.seek(piece.start)
        for line, num_bytes in bounded_lines(file, max_bytes):
            advance(num_bytes)
            yield line, num_bytes
            left -= num_bytes
            if left <= 0:
                return


@cache
def _json_loads() -> Callable[[bytes], Any]:
    """orjson where it is installed: what it refuses, and what it may change, goes to json all the same."""
    try:
        import orjson
    except ImportError:
        return json.loads
    return orjson.loads


def _document_of(line: bytes, where: str, config: DataConfig) -> Document | Drop:
    """The document of a row that is plain JSON, as nearly all are; `_odd_document_of` knows all others."""
    try:
        row = _json_loads()(line)
    except ValueError:
        return _odd_document_of(line, where, config)
    # What orjson gives as a float may be an integer of more than 64 bits.
    if not isinstance(row, dict) or isinstance(row.get(config.id_field), float):
        return _odd_document_of(line, where, config)
    return _document_of_row(row, where, config)


def _odd_document_of(line: bytes, where: str, config: DataConfig) -> Document | Drop:
    replaced = False
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        detail = f"byte {error.start} of the line is not UTF-8 ({error.reason})"
        drop = undecodable(config.on_undecodable, Drop(where, where, "undecodable", detail))
        if drop is not None:
            return drop
        text, replaced = line.decode("utf-8", errors="replace"), True
    try:
        row = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        return Drop(where, where, "malformed", printable(f"not JSON: {error}"))
    if not isinstance(row, dict):
        return Drop(where, where, "malformed", f"not an object but {type(row).__name__}")
    return _document_of_row(row, where, config, replaced)


def _document_of_row(
    row: dict[str, Any], where: str, config: DataConfig, replaced: bool = False
) -> Document | Drop:
    value = row.pop(config.id_field, None) if config.id_field != config.text_field else None
    id = id_of(value, where)
    if config.reads_rows:
        return document_from_row(row, config.on_undecodable, id, where, replaced)
    if not isinstance(row.get(config.text_field), str):
        problem = "is not a string" if config.text_field in row else "is missing"
        return Drop(id, where, "missing_field", f"field {config.text_field!r} {problem}")
    text = row.pop(config.text_field)
    return document_from_string(text, config.on_undecodable, id, where, row, replaced)
