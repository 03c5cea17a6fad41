"""A file whose bytes are checked against its receipt before anyone sees them."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedbed.errors import SeedbedError, Unreadable

HASH_BYTES = 32


class VerifiedFile:
    """A file mapped into memory; each slice of its receipt is hashed when it is first read, once.

    Raises `error` (with `fix`) at once when the file is missing or of another size, and at a read
    when a slice does not have its hash; Unreadable when the operating system refuses to read it.
    """

    def __init__(self, path: Path, receipt: dict[str, Any], error: type[SeedbedError], fix: str) -> None:
        self.path = path
        self._error, self._fix = error, fix
        self._num_bytes: int = receipt["bytes"]
        self._slice_bytes: int = receipt["slice_bytes"]
        self._hashes = bytes.fromhex(receipt["slices"])
        self._verified = bytearray(len(self._hashes) // HASH_BYTES)
        self._mapped: NDArray[np.uint8] | None = None
        self._check_size()

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Bytes start .. stop-1, as a view of the mapped file."""
        if start >= stop:
            return np.empty(0, dtype=np.uint8)
        if self._mapped is None:
            self._check_size()
            try:
                mapped = np.memmap(self.path, dtype=np.uint8, mode="r")
            except OSError as error:
                raise Unreadable.because(self.path, error) from error
            # A plain view: slicing the subclass costs some 5 µs.
            self._mapped = mapped.view(np.ndarray)
        for number in range(start // self._slice_bytes, (stop - 1) // self._slice_bytes + 1):
            if not self._verified[number]:
                self._verify_slice(self._mapped, number)
        return self._mapped[start:stop]

    def read_all(self) -> bytes:
        return self.read(0, self._num_bytes).tobytes()

    def verify(self) -> None:
        """Check every slice that was not read yet."""
        self.read(0, self._num_bytes)

    def _verify_slice(self, mapped: NDArray[np.uint8], number: int) -> None:
        start = number * self._slice_bytes
        stop = min(start + self._slice_bytes, self._num_bytes)
        expected = self._hashes[HASH_BYTES * number : HASH_BYTES * (number + 1)]
        if hashlib.sha256(mapped[start:stop].data).digest() != expected:
            raise self._error(
                f"{self.path} is damaged: bytes {start} to {stop - 1} do not match their SHA-256", self._fix
            )
        self._verified[number] = 1

    def _check_size(self) -> None:
        try:
            size = self.path.stat().st_size
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self._error(f"{self.path} is missing ({error.strerror})", self._fix) from error
        except OSError as error:
            raise Unreadable.because(self.path, error) from error
        if size != self._num_bytes:
            raise self._error(
                f"{self.path} has {size:,} bytes, not the {self._num_bytes:,} that were written", self._fix
            )
