"""Text files: a whole file as one document, or a lone file in passages."""

from collections.abc import Iterator
from io import BufferedReader

from data.config import DataConfig
from data.sources.decoding import document_from_bytes, too_long
from data.sources.documents import Advance, Document, Drop
from data.sources.pieces import Piece, Tally
from data.sources.streams import open_piece, pass_over_line

# Passages of a lone text file: small enough that a short book has some for the holdout, and long
# enough that a passage has context to learn from.
MIN_PASSAGE_BYTES = 1024
MAX_PASSAGE_BYTES = 16 * 1024
PASSAGES_WANTED = 64


def read_whole(piece: Piece, config: DataConfig, advance: Advance, tally: Tally) -> Iterator[Document | Drop]:
    """The one document that is the whole file."""
    name = piece.relative
    if piece.size > config.max_document_bytes:
        advance(piece.size)
        yield too_long(name, name, piece.size, config.max_document_bytes)
        return
    with open_piece(piece) as file:
        raw = file.read()
    advance(len(raw))
    yield document_from_bytes(raw, config.on_undecodable, name, name)


def plan_passages(whole: Piece, part_bytes: int, config: DataConfig) -> Iterator[Piece]:
    """Ranges of whole passages, each of `part_bytes` or little more; reads the file when it is larger."""
    if whole.file_bytes <= part_bytes:
        yield whole
        return
    start = stop = first_line = number = 0
    for number, (_, num_bytes) in enumerate(_passages(whole, config.max_document_bytes), start=1):
        stop += num_bytes
        if stop - start >= part_bytes or stop >= whole.file_bytes:
            yield whole.cut(start, stop, first_line)
            start, first_line = stop, number


def read_passages(
    piece: Piece, config: DataConfig, advance: Advance, tally: Tally
) -> Iterator[Document | Drop]:
    """Consecutive passages of one text file, which together are the file, byte for byte.

    A passage ends at the first blank line past its wanted size, or at the first line end past
    four times that size. One document could not be split into train and holdout; passages can.
    """
    name, offset = piece.relative, piece.start
    for number, (raw, num_bytes) in enumerate(_passages(piece, config.max_document_bytes), piece.first_line):
        advance(num_bytes)
        id = f"{name}#{number}"
        if raw is None:
            yield too_long(id, name, num_bytes, config.max_document_bytes)
        else:
            yield document_from_bytes(raw, config.on_undecodable, id, name, offset)
        offset += num_bytes


def _passages(piece: Piece, max_bytes: int) -> Iterator[tuple[bytes | None, int]]:
    """The passages of a piece, and their lengths; one of more than `max_bytes` is None, and never held."""
    wanted = min(MAX_PASSAGE_BYTES, max(MIN_PASSAGE_BYTES, piece.file_bytes // PASSAGES_WANTED))
    left = piece.stop - piece.start
    with open_piece(piece) as file:
        file.seek(piece.start)
        while left > 0:
            passage, is_cut = _next_passage(file, wanted, max_bytes)
            num_bytes = len(passage) + (pass_over_line(file) if is_cut else 0)
            if not num_bytes:
                return
            yield None if num_bytes > max_bytes else bytes(passage), num_bytes
            left -= num_bytes


def _next_passage(file: BufferedReader, wanted: int, max_bytes: int) -> tuple[bytearray, bool]:
    """The next passage, and whether it was left inside a line because it is longer than `max_bytes`."""
    # No passage ends before its wanted size, so that much need not be looked at.
    passage = bytearray(file.read(wanted - 1))
    while line := file.readline(max(1, max_bytes + 1 - len(passage))):
        passage += line
        if not line.endswith(b"\n"):
            return passage, len(passage) > max_bytes
        last = passage[passage.rfind(b"\n", 0, len(passage) - 1) + 1 :]
        if len(passage) >= 4 * wanted or not last.strip():
            break
    return passage, False
