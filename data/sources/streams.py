"""The bytes of a piece, from disk or an URL, decompressed where needed; lines of bounded length."""

import gzip
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from data.packages import package_missing
from data.sources.documents import Advance
from data.sources.pieces import Piece
from data.storage import READ_BYTES, is_url, open_url, storage_errors
from seedbed.errors import DataError

COMPRESSED = (".gz", ".zst")

# A zstd block of 4 bytes can stand for 128 KiB: this much input makes 32 MiB at the worst.
ZSTD_INPUT_BYTES = 1024


@contextmanager
def open_piece(piece: Piece) -> Iterator[io.BufferedReader]:
    """The whole file that `piece` is of, at its beginning, seekable.

    Raises DataError when it cannot be read, or is not the version that was listed.
    """
    if is_url(piece.path):
        with storage_errors(piece.path), open_url(piece.path, piece.version) as file:
            yield file
        return
    try:
        raw: Any = io.FileIO(piece.path)
        with io.BufferedReader(raw, READ_BYTES) as file:
            _refuse_changed(file, piece)
            yield file
            _refuse_changed(file, piece)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(
            f"cannot read {piece.path}: {reason}", "check the file and its permissions, or leave it out"
        ) from error


def _refuse_changed(file: io.BufferedReader, piece: Piece) -> None:
    if os.fstat(file.fileno()).st_mtime_ns != piece.mtime_ns:
        raise DataError(
            f"{piece.path} changed while the dataset was built",
            "build again when nothing writes to the source",
        )


@contextmanager
def open_decompressed(piece: Piece, advance: Advance) -> Iterator[io.BufferedReader]:
    """The content of a compressed file, which may have several members or frames, as a stream.

    Raises DataError at a read when the file is damaged or ends early.
    """
    with open_piece(piece) as file:
        compressed = _Counted(file, advance)
        try:
            if piece.relative.lower().endswith(".gz"):
                yield io.BufferedReader(gzip.GzipFile(fileobj=compressed, mode="rb"), READ_BYTES)
            else:
                yield io.BufferedReader(_Pulled(_zstd_chunks(compressed, piece)), READ_BYTES)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise damaged(piece, str(error)) from error


def bounded_lines(file: io.BufferedReader, max_bytes: int) -> Iterator[tuple[bytes | None, int]]:
    """Lines with their line ends, and their lengths.

    A line of more than `max_bytes`, its end not counted, is None, and never held.
    """
    while line := file.readline(max_bytes + 1):
        if len(line) <= max_bytes or line.endswith(b"\n"):
            yield line, len(line)
        else:
            yield None, len(line) + pass_over_line(file)


def pass_over_line(file: io.BufferedReader) -> int:
    """Read to the end of a line without holding it; returns the number of bytes."""
    num_bytes = 0
    while ahead := file.peek(1):
        end = ahead.find(b"\n") + 1
        num_bytes += len(file.read(end or len(ahead)))
        if end:
            break
    return num_bytes


def damaged(piece: Piece, detail: str) -> DataError:
    """What to tell the user about a file whose content makes no sense."""
    return DataError(f"{piece.path} is damaged or cut off: {detail}", "fetch or compress the file again")


class _Counted:
    """The part of a binary file that `gzip` uses, reporting what is read."""

    def __init__(self, file: io.BufferedReader, advance: Advance) -> None:
        self._file, self._advance = file, advance

    def read(self, size: int = -1) -> bytes:
        block = self._file.read(size)
        self._advance(len(block))
        return block

    def seek(self, offset: int) -> int:
        return self._file.seek(offset)


class _Pulled(io.RawIOBase):
    """Chunks of bytes as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._chunk = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._chunk:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._chunk = memoryview(chunk)
        count = min(len(buffer), len(self._chunk))
        buffer[:count] = self._chunk[:count]
        self._chunk = self._chunk[count:]
        return count


def _zstd_chunks(file: _Counted, piece: Piece) -> Iterator[bytes]:
    """The content of one or more zstd frames. (`stream_reader` ends a cut frame without an error.)"""
    try:
        import zstandard
    except ImportError as error:
        raise package_missing(f"reading {piece.path}", "zstandard", "zstd", "decompress it") from error
    frame = None
    try:
        while block := file.read(READ_BYTES):
            for start in range(0, len(block), ZSTD_INPUT_BYTES):
                rest = block[start : start + ZSTD_INPUT_BYTES]
                while rest:
                    frame = frame or zstandard.ZstdDecompressor().decompressobj()
                    yield frame.decompress(rest)
                    rest = frame.unused_data if frame.eof else b""
                    frame = None if frame.eof else frame
    except zstandard.ZstdError as error:
        raise damaged(piece, str(error)) from error
    if frame is not None:
        raise damaged(piece, "the last frame is cut off")
