"""Reading a piece by its kind, in whatever process it came to."""

from collections.abc import Callable, Iterable, Iterator

from data.config import DataConfig
from data.sources.documents import Advance, Document, Drop
from data.sources.huggingface import ROWS, SHARD, read_rows, read_shard
from data.sources.jsonl import SUFFIXES as JSONL_SUFFIXES
from data.sources.jsonl import plan_jsonl, read_jsonl
from data.sources.parquet import SUFFIXES as PARQUET_SUFFIXES
from data.sources.parquet import plan_parquet, read_parquet
from data.sources.pieces import Piece, Tally, check_malformed
from data.sources.text import plan_passages, read_passages, read_whole

Read = Callable[[Piece, DataConfig, Advance, Tally], Iterator[Document | Drop]]
Plan = Callable[[Piece, int, DataConfig], Iterator[Piece]]

TEXT, PASSAGES, JSONL, PARQUET = "text", "passages", "jsonl", "parquet"

KINDS: dict[str, Read] = {
    TEXT: read_whole,
    PASSAGES: read_passages,
    JSONL: read_jsonl,
    PARQUET: read_parquet,
    ROWS: read_rows,
    SHARD: read_shard,
}

# How a file is cut into pieces of about so many bytes; one of any other kind is never cut.
PLANS: dict[str, Plan] = {PASSAGES: plan_passages, JSONL: plan_jsonl, PARQUET: plan_parquet}


def kind_of(name: str, text: str) -> str:
    """The kind of a file by its name; `text` when that says nothing."""
    if name.lower().endswith(JSONL_SUFFIXES):
        return JSONL
    return PARQUET if name.lower().endswith(PARQUET_SUFFIXES) else text


def read_piece(
    piece: Piece, config: DataConfig, advance: Advance, tally: Tally | None = None
) -> Iterator[Document | Drop]:
    """The documents of one piece, in order, and a Drop for each that is not taken.

    `tally`, one of the caller's own for each piece, is filled in meanwhile; whether a file has too many
    malformed rows is known when `check_malformed` gets those of all its pieces.
    """
    return KINDS[piece.kind](piece, config, advance, Tally() if tally is None else tally)


def read_pieces(pieces: Iterable[Piece], config: DataConfig, advance: Advance) -> Iterator[Document | Drop]:
    """The documents of whole files, one after the other, each checked for malformed rows at its end."""
    for piece in pieces:
        tally = Tally()
        yield from read_piece(piece, config, advance, tally)
        check_malformed([{piece.relative: tally.as_json()}], config)
