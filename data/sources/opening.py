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
from data.sources.huggingface import is_hugging_face, open_hugging_face
from data.sources.listing import FileEntry, Listing, entry_of, list_folder, list_remote
from data.sources.pieces import Piece, group_pieces
from data.sources.reading import PASSAGES, PLANS, TEXT, kind_of, read_pieces
from data.storage import is_url, list_url
from seedbed.errors import DataError

STDLIB = "stdlib"

# Installed packages are not Python's own text, and tests hold files that are broken on purpose.
NOT_STDLIB = frozenset({"site-packages", "dist-packages", "test", "tests", "__pycache__"})


@dataclass
class FileSource:
    """Files on disk or at an URL, each read by its kind: by suffix, or as text."""

    name: str
    kind: str
    root: str
    listing: Listing
    config: DataConfig

    @property
    def total_bytes(self) -> int:
        return sum(entry.size for entry in self.listing.entries)

    @property
    def drops(self) -> list[Drop]:
        return self.listing.drops

    def describe(self) -> dict[str, Any]:
        description = {"kind": self.kind, "asked": self.config.source, "files": len(self.listing.entries)}
        return description | ({"python": platform.python_version()} if self.kind == STDLIB else {})

    def identity(self) -> dict[str, Any]:
        files = [
            (entry.relative, entry.size, entry.version or entry.mtime_ns) for entry in self.listing.entries
        ]
        return self.describe() | {"asked": self.root, "files": files}

    def parts(self, part_bytes: int) -> list[list[Piece]]:
        return group_pieces(self._pieces(part_bytes), part_bytes)

    def documents(self, advance: Advance) -> Iterator[Document | Drop]:
        yield from self.drops
        yield from read_pieces(map(self._whole, self.listing.entries), self.config, advance)

    def _whole(self, entry: FileEntry) -> Piece:
        return Piece(
            kind=kind_of(entry.relative, PASSAGES if self.kind == "file" else TEXT),
            relative=entry.relative,
            path=entry.path,
            size=entry.size,
            start=0,
            stop=entry.size,
            file_bytes=entry.size,
            mtime_ns=entry.mtime_ns,
            version=entry.version,
        )

    def _pieces(self, part_bytes: int) -> Iterator[Piece]:
        for whole in map(self._whole, self.listing.entries):
            if whole.kind in PLANS:
                yield from PLANS[whole.kind](whole, part_bytes, self.config)
            else:
                yield whole


def open_source(config: DataConfig) -> Source:
    """The source that `config` asks for; DataError when it is missing or has no file to read."""
    if config.source == STDLIB:
        return _open_stdlib(config)
    if not config.source:
        raise DataError("data.source is empty", "set it to stdlib, a folder, a text file or a .jsonl file")
    if is_hugging_face(config.source):
        return open_hugging_face(config)
    if is_url(config.source) and not config.source.startswith("file://"):
        return _open_url(config.source, config)
    return _open_path(Path(config.source.removeprefix("file://")).expanduser(), config)


def _open_stdlib(config: DataConfig) -> FileSource:
    root = Path(sysconfig.get_path("stdlib"))
    listing = list_folder(root, "*.py", NOT_STDLIB)
    if not listing.entries:
        raise DataError(
            f"this Python has no source files in {root}",
            "use a Python that comes with its library as .py files, or set data.source to a folder of text",
        )
    return FileSource(STDLIB, STDLIB, str(root), listing, config)


def _open_path(path: Path, config: DataConfig) -> FileSource:
    path = path.absolute()  # a worker may run in another folder
    if not path.exists():
        raise DataError(
            f"data.source does not exist: {path}",
            "set data.source to an existing folder or file, or to stdlib",
        )
    root = str(path.resolve())
    if path.is_dir():
        return _folder(root, list_folder(path, config.pattern), config)
    if not path.is_file():
        raise DataError(
            f"data.source is neither a folder nor a file: {path}", "save its content to a file first"
        )
    return FileSource(_short_name(root), "file", root, Listing([entry_of(path)]), config)


def _open_url(url: str, config: DataConfig) -> FileSource:
    found = list_url(url)
    if isinstance(found, list):
        return _folder(url, list_remote(found, config.pattern), config)
    return FileSource(_short_name(url), "file", url, list_remote([found], "*"), config)


def _folder(root: str, listing: Listing, config: DataConfig) -> FileSource:
    if not listing.entries:
        raise DataError(
            f"no file in {root} matches data.pattern = {config.pattern!r}",
            'set data.pattern, for example to "*.txt", or data.source to another folder',
        )
    return FileSource(_short_name(root), "folder", root, listing, config)


def _short_name(root: str) -> str:
    name = root.rstrip("/").rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "source"
