"""Files of a dataset at an URL, read through a local cache of bounded size; no byte is given out unproved.

    $SEEDBED_CACHE/remote/<hash of URL and content>/<chunk>  some 4 MiB of a file: whole slices of its receipt
    $SEEDBED_CACHE/remote/used_bytes                         never less than the chunks take

A chunk is hashed when it arrives, and again when a process first uses what it finds in the cache. Any
number of processes share the cache: a chunk is fetched by one of them, and the least recently used go first.
"""

import fcntl
import hashlib
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.storage import filesystem, is_storage_error, storage_errors
from seedbed.errors import DataError
from seedbed.files import write_atomic
from seedbed.verified import HASH_BYTES

CHUNK_BYTES = 4 * 1024 * 1024
DEFAULT_CACHE_BYTES = 50 * 1024**3

# Waits between the three tries at something that may pass by itself.
RETRY_PAUSES_S = (0.5, 2.0)

# How stale the recorded time of a chunk's last use may be.
TOUCH_EVERY_S = 60.0

NUM_LOCKS = 64
USED_BYTES = "used_bytes"


def fetch_bytes(url: str) -> bytes:
    """The whole file at `url`, unproved: for manifests, which carry their own digest.

    Raises FileNotFoundError when there is none, and DataError when the storage does not answer.
    """
    with storage_errors(url):
        fs, path = filesystem(url)
        try:
            return _retried(lambda: fs.cat_file(path))
        except FileNotFoundError as error:
            missing = FileNotFoundError(f"{url} does not exist")
            missing.__cause__ = error
    raise missing


class RemoteFile:
    """A file at an URL whose bytes are checked against its receipt; reads like `VerifiedFile`.

    Raises DataError, at a read, when the file is missing, cut off or altered, or cannot be reached.
    """

    def __init__(self, url: str, receipt: dict[str, Any], cache: "ChunkCache | None" = None) -> None:
        self.url = url
        self._num_bytes: int = receipt["bytes"]
        self._slice_bytes: int = receipt["slice_bytes"]
        self._hashes = bytes.fromhex(receipt["slices"])
        self._chunk_bytes = self._slice_bytes * max(1, CHUNK_BYTES // self._slice_bytes)
        self._cache = cache or ChunkCache.from_environment()
        self._key = hashlib.sha256(f"{url}\n{receipt['sha256']}".encode()).hexdigest()
        # Chunk -> which file in the cache was proved, and when its use was last recorded.
        self._proved: dict[int, tuple[tuple[int, int], float]] = {}

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Bytes start .. stop-1."""
        size = self._chunk_bytes
        pieces = []
        while start < stop:
            number = start // size
            until = min(stop, (number + 1) * size)
            pieces.append(self._read_chunk(number, start - number * size, until - number * size))
            start = until
        return np.frombuffer(pieces[0] if len(pieces) == 1 else b"".join(pieces), dtype=np.uint8)

    def read_all(self) -> bytes:
        return self.read(0, self._num_bytes).tobytes()

    def verify(self) -> None:
        """Fetch and check every chunk that was not read yet."""
        for number in range(-(-self._num_bytes // self._chunk_bytes)):
            self._read_chunk(number, 0, 1)

    def _read_chunk(self, number: int, start: int, stop: int) -> bytes:
        """Bytes of one chunk, from the cache, where they are put if they are not in it."""
        path = self._cache.path(self._key, number)
        with self._cache.explained():
            found = self._read_cached(path, number, start, stop)
            if found is None:
                with self._cache.locked(self._key, number):
                    # Another process may have fetched it while this one waited.
                    found = self._read_cached(path, number, start, stop)
                    if found is None:
                        chunk = self._fetch(number)
                        self._cache.store(path, chunk)
                        found = chunk[start:stop]
        return found

    def _read_cached(self, path: Path, number: int, start: int, stop: int) -> bytes | None:
        try:
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
                this_file = (status.st_ino, status.st_mtime_ns)
                proved, touched = self._proved.get(number, (None, 0.0))
                if proved != this_file and self._wrong_slice(number, file.read()) is not None:
                    print(f"{path} in the cache is damaged: fetching it again", file=sys.stderr)
                    path.unlink()
                    return None
                if proved != this_file or time.monotonic() - touched > TOUCH_EVERY_S:
                    os.utime(file.fileno(), ns=(time.time_ns(), status.st_mtime_ns))
                    self._proved[number] = (this_file, time.monotonic())
                file.seek(start)
                return file.read(stop - start)
        except FileNotFoundError:
            return None

    def _fetch(self, number: int) -> bytes:
        begin = number * self._chunk_bytes
        end = min(begin + self._chunk_bytes, self._num_bytes)
        with storage_errors(self.url):
            fs, path = filesystem(self.url)
            chunk = _retried(lambda: fs.cat_file(path, start=begin, end=end))
        wrong = self._wrong_slice(number, chunk)
        if wrong is not None:
            raise DataError(
                f"{self.url} is damaged: bytes {wrong} to {min(wrong + self._slice_bytes, end) - 1} do not "
                f"match their SHA-256 ({len(chunk):,} of {end - begin:,} bytes came)",
                "copy the dataset to that place again",
            )
        return chunk

    def _wrong_slice(self, number: int, chunk: bytes) -> int | None:
        """The first byte, in the file, of the first slice of a chunk that does not have its hash."""
        begin = number * self._chunk_bytes
        end = min(begin + self._chunk_bytes, self._num_bytes)
        if len(chunk) > end - begin:
            return begin
        for start in range(begin, end, self._slice_bytes):
            content = chunk[start - begin : min(start + self._slice_bytes, end) - begin]
            at = start // self._slice_bytes * HASH_BYTES
            if hashlib.sha256(content).digest() != self._hashes[at : at + HASH_BYTES]:
                return start
        return None


class ChunkCache:
    """Chunks below the folder `root`, at most `max_bytes` of them, shared by any number of processes."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        self.root, self.max_bytes = root, max_bytes

    @classmethod
    def from_environment(cls) -> "ChunkCache":
        """The cache in $SEEDBED_CACHE (or ~/.cache/seedbed), of $SEEDBED_CACHE_BYTES (or 50 GiB)."""
        asked = os.environ.get("SEEDBED_CACHE_BYTES") or str(DEFAULT_CACHE_BYTES)
        if not asked.isdecimal():
            raise DataError(
                f"SEEDBED_CACHE_BYTES is {asked!r}, not a number of bytes", "set it to an integer"
            )
        root = Path(os.environ.get("SEEDBED_CACHE") or "~/.cache/seedbed").expanduser()
        return cls(root / "remote", int(asked))

    def path(self, key: str, number: int) -> Path:
        """Where chunk `number` of the file `key` is, if it is there."""
        return self.root / key / str(number)

    def store(self, path: Path, chunk: bytes) -> None:
        """Write a chunk, for which others are removed when there is no room."""
        if len(chunk) > self.max_bytes:
            raise DataError(
                f"a chunk has {len(chunk):,} bytes, and the cache may have {self.max_bytes:,}",
                "raise SEEDBED_CACHE_BYTES",
            )
        with self._locked_file(USED_BYTES) as descriptor:
            recorded = os.pread(descriptor, 32, 0)
            used = int(recorded) if recorded.strip().isdigit() else self.max_bytes
            if used + len(chunk) > self.max_bytes:
                # Some more than needed, so that not every chunk from now on looks at all of them.
                used = self._shrink_to(min(self.max_bytes * 15 // 16, self.max_bytes - len(chunk)))
            # Before it is written: a crash makes the count too large, never too small.
            os.pwrite(descriptor, b"%-20d\n" % (used + len(chunk)), 0)
            path.parent.mkdir(parents=True, exist_ok=True)
            # Not durable: what a crash leaves behind is found by its hash.
            write_atomic(path, chunk, durable=False)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Whatever the cache's disk raises becomes a DataError that names the cache."""
        try:
            yield
        except OSError as error:
            raise DataError(
                f"cannot use the cache {self.root}: {error.strerror or error}",
                "make room there, lower SEEDBED_CACHE_BYTES, or set SEEDBED_CACHE to another folder",
            ) from error

    @contextmanager
    def locked(self, key: str, number: int) -> Iterator[None]:
        """Alone among all threads and processes with this chunk (and those that share its lock)."""
        name = f"{zlib.crc32(f'{key}/{number}'.encode()) % NUM_LOCKS:02}.lock"
        with self._locked_file(name):
            yield

    @contextmanager
    def _locked_file(self, name: str) -> Iterator[int]:
        self.root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.root / name, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)

    def _shrink_to(self, num_bytes: int) -> int:
        """Remove the least recently used chunks until `num_bytes` are left; returns what is left."""
        chunks = []
        for path in self.root.glob("*/*"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            chunks.append((status.st_atime_ns, path, status.st_size))
        used = sum(size for _, _, size in chunks)
        for _, path, size in sorted(chunks):
            if used <= num_bytes:
                break
            path.unlink(missing_ok=True)
            used -= size
        return used


def _retried(fetch: Callable[[], bytes]) -> bytes:
    """What `fetch` gives, tried three times unless it is plain that another try is useless."""
    for pause_s in RETRY_PAUSES_S:
        try:
            return fetch()
        except (FileNotFoundError, PermissionError):
            raise
        except Exception as error:
            if not is_storage_error(error):
                raise
            time.sleep(pause_s)
    return fetch()
