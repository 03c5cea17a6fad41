"""Parquet files, streamed by row groups; only the columns of text and id are read."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from data.config import DataConfig
from data.packages import package_missing
from data.sources.documents import Advance, Document, Drop
from data.sources.pieces import Piece, Tally, even_ranges
from data.sources.streams import damaged, open_piece
from data.sources.tables import batch_rows, read_tables, wanted_columns
from data.storage import READ_BYTES

SUFFIXES = (".parquet",)


def plan_parquet(whole: Piece, part_bytes: int, config: DataConfig) -> Iterator[Piece]:
    """Ranges of about `part_bytes`; which row groups lie in one, its reader finds in the file itself."""
    num_pieces = max(1, -(-whole.file_bytes // part_bytes))
    for start, stop in even_ranges(whole.file_bytes, num_pieces):
        yield whole.cut(start, stop)


def read_parquet(
    piece: Piece, config: DataConfig, advance: Advance, tally: Tally
) -> Iterator[Document | Drop]:
    """One document per row of the row groups that begin in the piece.

    Raises DataError when the file is damaged or cut off, or lacks the text's column.
    """
    with _parquet_file(piece) as file:
        columns = wanted_columns(piece, file.schema_arrow.names, config)
        groups, first_row = _groups_of(piece, file.metadata)
        described = [file.metadata.row_group(number) for number in groups]
        num_rows = sum(group.num_rows for group in described)
        rows = batch_rows(sum(group.total_byte_size for group in described), num_rows)
        batches = file.iter_batches(rows, groups, columns, use_threads=False) if groups else ()
        yield from read_tables(
            batches, replace(piece, first_line=first_row), num_rows, config, advance, tally
        )


def _groups_of(piece: Piece, about: Any) -> tuple[list[int], int]:
    """The row groups that begin in the piece, and the number of rows before them.

    A group begins at the share of the file's bytes that the rows before it are of all rows: so no
    row group is in two pieces or in none, and nothing need be known of the layout of the file.
    """
    groups: list[int] = []
    first_row = row = 0
    for number in range(about.num_row_groups):
        if piece.start <= piece.file_bytes * row // max(1, about.num_rows) < piece.stop:
            first_row = first_row if groups else row
            groups.append(number)
        row += about.row_group(number).num_rows
    return groups, first_row


@contextmanager
def _parquet_file(piece: Piece) -> Iterator[Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise package_missing(f"reading {piece.path}", "pyarrow", "parquet") from error
    with open_piece(piece) as file:
        try:
            yield pq.ParquetFile(file, buffer_size=READ_BYTES, page_checksum_verification=True)
        except pa.ArrowException as error:
            raise damaged(piece, str(error)) from error
        except OSError as error:
            # The system's own errors have a number; Arrow's, about pages that make no sense, have none.
            if error.errno is None:
                raise damaged(piece, str(error)) from error
            raise
