"""Which files a folder has, on disk or at an URL."""

import fnmatch
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from data.sources.decoding import printable
from data.sources.documents import Drop
from data.storage import RemoteEntry
from seedbed.errors import DataError


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of a source, as `Piece` says it."""

    relative: str
    path: str
    size: int
    mtime_ns: int = 0
    version: str = ""


@dataclass
class Listing:
    """The files of a folder that match, in order, and the drops that finding them cost."""

    entries: list[FileEntry] = field(default_factory=list)
    drops: list[Drop] = field(default_factory=list)


def list_folder(root: Path, pattern: str, skipped_folders: frozenset[str] = frozenset()) -> Listing:
    """The files under `root` that match one of the comma-separated globs, sorted by relative path.

    Links to folders are followed; a folder that was already entered, by whatever name, is not
    entered again, so a loop of links ends.
    """
    globs = _globs(pattern)
    listing = Listing()
    entered: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(root, followlinks=True, onerror=_refuse):
        inside = Path(folder).relative_to(root)
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in entered:
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        for name in sorted(folders):
            if name.startswith("."):
                listing.drops.append(_hidden((inside / name).as_posix() + "/"))
        folders[:] = sorted(name for name in folders if not (name.startswith(".") or name in skipped_folders))
        for name in files:
            relative = (inside / name).as_posix()
            if _matches(relative, globs):
                _list_file(Path(folder, name), relative, listing)
    return _sorted(listing)


def _list_file(path: Path, relative: str, listing: Listing) -> None:
    name = printable(relative)
    if path.name.startswith("."):
        listing.drops.append(_hidden(name))
        return
    try:
        status = path.stat()
    except OSError as error:
        listing.drops.append(Drop(name, name, "not_a_file", f"a link that leads nowhere ({error.strerror})"))
        return
    if stat.S_ISREG(status.st_mode):
        listing.entries.append(FileEntry(name, str(path), status.st_size, status.st_mtime_ns))
    else:
        # Reading a pipe would wait for a writer that may never come.
        listing.drops.append(Drop(name, name, "not_a_file", "a pipe, socket or device"))


def entry_of(path: Path) -> FileEntry:
    """The entry of one local file that was asked for by name."""
    status = path.stat()
    return FileEntry(printable(path.name), str(path), status.st_size, status.st_mtime_ns)


def list_remote(found: Iterable[RemoteEntry], pattern: str) -> Listing:
    """The remote files that match one of the comma-separated globs, sorted by relative path."""
    globs = _globs(pattern)
    listing = Listing()
    hidden: set[str] = set()
    for file in found:
        *folders, name = file.relative.split("/")
        concealed = next((number for number, part in enumerate(folders) if part.startswith(".")), None)
        if concealed is not None:
            hidden.add("/".join(folders[: concealed + 1]) + "/")
        elif _matches(file.relative, globs):
            if name.startswith("."):
                hidden.add(file.relative)
            else:
                listing.entries.append(
                    FileEntry(printable(file.relative), file.url, file.size, version=file.version)
                )
    listing.drops = [_hidden(name) for name in hidden]
    return _sorted(listing)


def _sorted(listing: Listing) -> Listing:
    listing.entries.sort(key=lambda entry: entry.relative)
    listing.drops.sort(key=lambda drop: drop.id)
    return listing


def _refuse(error: OSError) -> None:
    """`os.walk` passes over what it cannot list; half a corpus must not pass for a whole one."""
    raise DataError(
        f"cannot list {error.filename}: {error.strerror}", "check its permissions, or leave it out"
    ) from error


def _hidden(name: str) -> Drop:
    return Drop(printable(name), printable(name), "hidden", "names that start with a dot are not read")


def _globs(pattern: str) -> list[str]:
    return [glob.strip() for glob in pattern.split(",") if glob.strip()]


def _matches(relative: str, globs: list[str]) -> bool:
    name = relative.rpartition("/")[2]
    return any(fnmatch.fnmatchcase(relative if "/" in glob else name, glob) for glob in globs)
