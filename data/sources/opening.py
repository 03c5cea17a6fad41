"""From what the user asked for to the source that gives it."""

import platform
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.config import DataConfig
from data.sources.documents import Advance, Document, Drop, Source
from data.sources.files import Listing, entry_of, list_files, read_passages, read_whole
from data.sources.jsonl import is_jsonl, read_jsonl
from seedbed.errors import DataError

STDLIB = "stdlib"

# Installed packages are not Python's own text, and tests hold files that are broken on purpose.
NOT_STDLIB = frozenset({"site-packages", "dist-packages", "test", "tests", "__pycache__"})


@dataclass
class FileSource:
    """Files on disk, each read by its kind: JSON Lines by suffix, anything else as text."""

    name: str
    kind: str
    root: Path
    listing: Listing
    config: DataConfig

    @property
    def total_bytes(self) -> int:
        return sum(entry.size for entry in self.listing.entries)

    def describe(self) -> dict[str, Any]:
        description = {"kind": self.kind, "asked": self.config.source, "files": len(self.listing.entries)}
        return description | ({"python": platform.python_version()} if self.kind == STDLIB else {})

    def identity(self) -> dict[str, Any]:
        files = [(entry.relative, entry.size, entry.mtime_ns) for entry in self.listing.entries]
        return self.describe() | {"asked": str(self.root), "files": files}

    def documents(self, advance: Advance) -> Iterator[Document | Drop]:
        yield from self.listing.drops
        for entry in self.listing.entries:
            if is_jsonl(entry.relative):
                yield from read_jsonl(entry, self.config, advance)
            elif self.kind == "file":
                yield from read_passages(entry, self.config.on_undecodable, advance)
            else:
                yield from read_whole(entry, self.config.on_undecodable, advance)


def open_source(config: DataConfig) -> Source:
    """The source that `config` asks for; DataError when it is missing or has no file to read."""
    if config.source == STDLIB:
        return _open_stdlib(config)
    if not config.source:
        raise DataError("data.source is empty", "set it to stdlib, a folder, a text file or a .jsonl file")
    path = Path(config.source).expanduser()
    if not path.exists():
        raise DataError(
            f"data.source does not exist: {path}",
            "set data.source to an existing folder or file, or to stdlib",
        )
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.resolve().name).strip("-.") or "source"
    if path.is_dir():
        return _open_folder(path, name, config)
    if not path.is_file():
        raise DataError(
            f"data.source is neither a folder nor a file: {path}", "save its content to a file first"
        )
    return FileSource(name, "file", path.resolve(), Listing([entry_of(path)]), config)


def _open_stdlib(config: DataConfig) -> FileSource:
    root = Path(sysconfig.get_path("stdlib"))
    listing = list_files(root, "*.py", NOT_STDLIB)
    if not listing.entries:
        raise DataError(
            f"this Python has no source files in {root}",
            "use a Python that comes with its library as .py files, or set data.source to a folder of text",
        )
    return FileSource(STDLIB, STDLIB, root, listing, config)


def _open_folder(path: Path, name: str, config: DataConfig) -> FileSource:
    listing = list_files(path, config.pattern)
    if not listing.entries:
        raise DataError(
            f"no file in {path} matches data.pattern = {config.pattern!r}",
            'set data.pattern, for example to "*.txt", or data.source to another folder',
        )
    return FileSource(name, "folder", path.resolve(), listing, config)
