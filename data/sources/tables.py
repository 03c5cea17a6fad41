"""Arrow tables, as Parquet files and Hugging Face datasets give them, to documents."""

from collections.abc import Iterable, Iterator
from typing import Any

from data.config import DataConfig
from data.sources.decoding import document_from_bytes, document_from_row, id_of, too_long
from data.sources.documents import Advance, Document, Drop
from data.sources.pieces import Piece, Tally
from seedbed.errors import DataError

# Text to hold at once, as far as the mean length of a row can tell.
BATCH_BYTES = 8 * 1024 * 1024
MAX_BATCH_ROWS = 8192


def batch_rows(num_bytes: int, num_rows: int) -> int:
    """Rows that hold about `BATCH_BYTES`, where `num_rows` hold `num_bytes`."""
    return max(1, min(MAX_BATCH_ROWS, BATCH_BYTES * num_rows // max(1, num_bytes)))


def wanted_columns(piece: Piece, columns: Iterable[str], config: DataConfig) -> list[str]:
    """The columns of text and, where there are such, of ids and labels; DataError when there is no text.

    All columns, where rows are read whole.
    """
    names = list(columns)
    if config.reads_rows:
        return names
    if config.text_field not in names:
        raise DataError(
            f"{piece.path} has no column {config.text_field!r}; its columns are {', '.join(names) or 'none'}",
            "set data.text_field",
        )
    wanted = dict.fromkeys((config.text_field, config.id_field, config.label_field))
    return [name for name in wanted if name in names]


def read_tables(
    tables: Iterable[Any], piece: Piece, num_rows: int, config: DataConfig, advance: Advance, tally: Tally
) -> Iterator[Document | Drop]:
    """A document per row of `tables` (pyarrow tables or batches), which have `num_rows` rows in all.

    Rows are numbered from `piece.first_line` + 1. `advance` is told of `piece.size` bytes in proportion
    to the rows, or at the end when `num_rows` is not known (0).
    """
    done = told = 0
    for table in tables:
        if config.reads_rows:
            yield from _whole_rows(table, piece, done, config, tally)
            done += table.num_rows
            continue
        texts, lengths = _cells(table.column(config.text_field), piece, config)
        ids, labels = (_optional(table, name) for name in (config.id_field, config.label_field))
        for number, (raw, length) in enumerate(zip(texts, lengths, strict=True)):
            where = f"{piece.relative}:{piece.first_line + done + number + 1}"
            id = id_of(ids[number] if ids else None, where)
            tally.rows += 1
            if length is None:
                detail = f"field {config.text_field!r} is null"
                tally.note_bad(f"{where}: {detail}")
                yield Drop(id, where, "missing_field", detail)
            elif length > config.max_document_bytes:
                yield too_long(id, where, length, config.max_document_bytes)
            else:
                document = document_from_bytes(raw, config.on_undecodable, id, where)
                if labels and isinstance(document, Document):
                    document.meta[config.label_field] = labels[number]
                yield document
        done += table.num_rows
        if num_rows:
            advance(piece.size * done // num_rows - told)
            told = piece.size * done // num_rows
    advance(piece.size - told)


def _whole_rows(
    table: Any, piece: Piece, done: int, config: DataConfig, tally: Tally
) -> Iterator[Document | Drop]:
    """A document per row, as of a line of JSON."""
    for number, row in enumerate(table.to_pylist()):
        where = f"{piece.relative}:{piece.first_line + done + number + 1}"
        id = id_of(row.pop(config.id_field, None), where)
        tally.rows += 1
        yield document_from_row(row, config.on_undecodable, id, where)


def _optional(table: Any, name: str) -> list[Any] | None:
    return table.column(name).to_pylist() if name in table.schema.names else None


def _cells(column: Any, piece: Piece, config: DataConfig) -> tuple[list[bytes], list[int | None]]:
    """The bytes of every cell, nothing for one that is too long, and its length, None for a null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if str(kind).removeprefix("large_").removesuffix("_view") not in ("string", "binary"):
        raise DataError(
            f"{piece.path}: column {config.text_field!r} holds {column.type}, not text", "set data.text_field"
        )
    # Parquet strings need not be UTF-8, and nothing has looked yet.
    cells = column.cast(kind).cast(pa.large_binary())
    lengths = pc.binary_length(cells)
    kept = pc.if_else(pc.less_equal(lengths, config.max_document_bytes), cells, None)
    return kept.to_pylist(), lengths.to_pylist()
