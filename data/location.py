"""Where a dataset lies: a folder here, or one behind an fsspec URL that is read through the local cache.

Either way nothing is given out that does not fit its receipt.
"""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from seedbed.errors import DataError
from seedbed.verified import VerifiedFile

REBUILD = "rebuild with `seedbed data build`; a dataset in the cache is rebuilt once its folder is deleted"


class CheckedFile(Protocol):
    """A file whose bytes are checked before anyone sees them."""

    def read(self, start: int, stop: int) -> NDArray[np.uint8]: ...

    def read_all(self) -> bytes: ...

    def verify(self) -> None: ...


class Location:
    """The folder or URL `root`; names inside it are relative, with "/"."""

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)
        self.is_remote = "://" in self.root

    def __str__(self) -> str:
        return self.root

    @property
    def absolute(self) -> str:
        """The root as any process finds it."""
        return self.root if self.is_remote else str(Path(self.root).resolve())

    def name_of(self, name: str) -> str:
        """The full path or URL of `name`."""
        return f"{self.root.rstrip('/')}/{name}"

    def read_bytes(self, name: str) -> bytes:
        """A small file, unchecked, since a manifest carries its own digest. Raises OSError."""
        if self.is_remote:
            from data.remote import fetch_bytes

            return fetch_bytes(self.name_of(name))
        return Path(self.root, name).read_bytes()

    def open(self, name: str, receipt: dict[str, Any]) -> CheckedFile:
        """A file of the dataset; whatever is wrong with it is a DataError."""
        if self.is_remote:
            from data.remote import RemoteFile

            return RemoteFile(self.name_of(name), receipt)
        return VerifiedFile(Path(self.root, name), receipt, DataError, REBUILD)

    def refuse_absent(self, name: str, num_bytes: int) -> None:
        """DataError unless a local `name` has this size; a remote one is looked at when it is read."""
        if self.is_remote:
            return
        file = Path(self.root, name)
        size = file.stat().st_size if file.is_file() else None
        if size != num_bytes:
            found = "is missing" if size is None else f"has {size:,} bytes, not the {num_bytes:,} written"
            raise DataError(f"{file} {found}", REBUILD)
