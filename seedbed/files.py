"""Files that are either whole or absent, and hashes that prove it.

Writers go through a temporary name, fsync, rename and fsync of the parent, so that a
crash at any moment leaves the old file or the new one. Large files are hashed in slices
of at most 64 MiB while they are written; the root of a file is the hash over its slices,
so that a reader of one slice can verify that slice alone.
"""

import hashlib
import json
import os
import secrets
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

SLICE_BYTES = 64 * 1024 * 1024


def fsync_dir(path: Path) -> None:
    """Make renames inside `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, content: str | bytes, *, durable: bool = True) -> None:
    """Replace `path` by `content` in one step; readers see the old or the new, never a part.

    `durable=False` skips the fsyncs: for mirrors such as heartbeats, which a crash may lose.
    """
    payload = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(payload)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        fsync_dir(path.parent)


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """`write_atomic` of `value` as indented JSON."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n", durable=durable)


def canonical_json(value: Any) -> bytes:
    """The one byte string that stands for `value` wherever JSON is hashed."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")  # a path may hold what is no UTF-8


def digest_of(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def slices_root(slices: str) -> str:
    """The hash of a file, from the hashes of its slices in hex, one after the other."""
    return hashlib.sha256(slices.encode()).hexdigest()


class SliceHasher:
    """Hashes a stream of bytes slice by slice."""

    def __init__(self, slice_bytes: int = SLICE_BYTES) -> None:
        self.slice_bytes = slice_bytes
        self.num_bytes = 0
        self._done: list[str] = []
        self._current = hashlib.sha256()
        self._filled = 0

    def update(self, payload: bytes | bytearray | memoryview) -> None:
        view = memoryview(payload).cast("B")
        self.num_bytes += len(view)
        while len(view):
            part = view[: self.slice_bytes - self._filled]
            self._current.update(part)
            self._filled += len(part)
            view = view[len(part) :]
            if self._filled == self.slice_bytes:
                self._finish_slice()

    def _finish_slice(self) -> None:
        self._done.append(self._current.hexdigest())
        self._current = hashlib.sha256()
        self._filled = 0

    def slices(self) -> str:
        """Hashes of all slices so far in hex, one after the other, an unfinished last one included."""
        return "".join([*self._done, self._current.hexdigest()] if self._filled else self._done)


class HashingWriter:
    """A new file that is hashed while it is written and fsynced when it is closed.

    `receipt()` gives what a manifest records of it: bytes, slice size, slice hashes, root. `durable=False`
    leaves out the fsync: for what is proved by its hash before it is used, and made again otherwise.
    """

    def __init__(self, path: Path, slice_bytes: int = SLICE_BYTES, *, durable: bool = True) -> None:
        self.path, self._durable = path, durable
        self._hasher = SliceHasher(slice_bytes)
        self._file = open(path, "xb")  # noqa: SIM115 - closed by __exit__

    def write(self, payload: bytes | bytearray | memoryview) -> None:
        self._file.write(payload)
        self._hasher.update(payload)

    def __enter__(self) -> "HashingWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._durable:
                self._file.flush()
                os.fsync(self._file.fileno())
        finally:
            self._file.close()

    def receipt(self) -> dict[str, Any]:
        return _receipt(self._hasher)


def _receipt(hasher: SliceHasher) -> dict[str, Any]:
    slices = hasher.slices()
    return {
        "bytes": hasher.num_bytes,
        "slice_bytes": hasher.slice_bytes,
        "slices": slices,
        "sha256": slices_root(slices),
    }


def hash_file(path: Path, slice_bytes: int = SLICE_BYTES) -> dict[str, Any]:
    """The receipt of a file that exists, as `HashingWriter` would have given it."""
    hasher = SliceHasher(slice_bytes)
    with open(path, "rb") as file:
        while block := file.read(4 * 1024 * 1024):
            hasher.update(block)
    return _receipt(hasher)


def append_line(path: Path, row: dict[str, Any]) -> None:
    """Append one JSON object as one line; a line torn by a crash stays alone on its line.

    An OSError means that the object is not in the file. One that lacks only its line end, because the disk
    was full at just that byte, is in it: the next line sets the end.
    """
    payload = json.dumps(row, ensure_ascii=False).encode() + b"\n"
    with open(path, "ab+", buffering=0) as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                payload = b"\n" + payload
        written = 0
        while written < len(payload) - 1:
            written += file.write(payload[written:])


class Journal:
    """Appends rows to a JSON Lines file and outlasts a full disk: rows wait in memory, in order.

    Safe to use from several threads. `num_waiting` rows are not on disk yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: deque[dict[str, Any]] = deque()
        self._lock = threading.Lock()

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    def append(self, row: dict[str, Any]) -> None:
        """Write `row` after all that wait; when the disk refuses, they wait for the next call."""
        with self._lock:
            self._waiting.append(row)
            try:
                while self._waiting:
                    append_line(self.path, self._waiting[0])
                    self._waiting.popleft()
            except OSError:
                return


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file written by `append_line`; torn lines are passed over."""
    if not path.exists():
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(row, dict):
                yield row
