"""Folders and text files: which files there are, and what each of them says."""

import fnmatch
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data.sources.decoding import Policy, document_from_bytes, printable
from data.sources.documents import Advance, Document, Drop, FileEntry
from seedbed.errors import DataError

# Passages of a lone text file: small enough that a short book has some for the holdout, and long
# enough that a passage has context to learn from.
MIN_PASSAGE_BYTES = 1024
MAX_PASSAGE_BYTES = 16 * 1024
PASSAGES_WANTED = 64


@dataclass
class Listing:
    """The files of a folder that match, in order, and the drops that finding them cost."""

    entries: list[FileEntry] = field(default_factory=list)
    drops: list[Drop] = field(default_factory=list)


def list_files(root: Path, pattern: str, skipped_folders: frozenset[str] = frozenset()) -> Listing:
    """The files under `root` that match one of the comma-separated globs, sorted by relative path.

    Links to folders are followed; a folder that was already entered, by whatever name, is not
    entered again, so a loop of links ends.
    """
    globs = [glob.strip() for glob in pattern.split(",") if glob.strip()]
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
    listing.entries.sort(key=lambda entry: entry.relative)
    listing.drops.sort(key=lambda drop: drop.id)
    return listing


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
        listing.entries.append(FileEntry(name, path, status.st_size, status.st_mtime_ns))
    else:
        # Reading a pipe would wait for a writer that may never come.
        listing.drops.append(Drop(name, name, "not_a_file", "a pipe, socket or device"))


def entry_of(path: Path) -> FileEntry:
    """The entry of one file that was asked for by name."""
    status = path.stat()
    return FileEntry(printable(path.name), path, status.st_size, status.st_mtime_ns)


def read_whole(entry: FileEntry, policy: Policy, advance: Advance) -> Iterator[Document | Drop]:
    """The one document that is the whole file."""
    try:
        raw = entry.path.read_bytes()
    except OSError as error:
        raise unreadable(entry, error) from error
    advance(len(raw))
    yield document_from_bytes(raw, policy, entry.relative, entry.relative)


def read_passages(entry: FileEntry, policy: Policy, advance: Advance) -> Iterator[Document | Drop]:
    """Consecutive passages of one text file, which together are the file, byte for byte.

    A passage ends at the first blank line past its wanted size, or at the first line end past
    four times that size. One document could not be split into train and holdout; passages can.
    """
    wanted = min(MAX_PASSAGE_BYTES, max(MIN_PASSAGE_BYTES, entry.size // PASSAGES_WANTED))
    for number, (offset, raw) in enumerate(_passages(entry, wanted)):
        advance(len(raw))
        yield document_from_bytes(raw, policy, f"{entry.relative}#{number}", entry.relative, offset)


def _passages(entry: FileEntry, wanted: int) -> Iterator[tuple[int, bytes]]:
    offset = 0
    passage = bytearray()
    try:
        with open(entry.path, "rb") as file:
            for line in file:
                passage += line
                at_blank = not line.strip() and len(passage) >= wanted
                if at_blank or len(passage) >= 4 * wanted:
                    yield offset, bytes(passage)
                    offset += len(passage)
                    passage.clear()
    except OSError as error:
        raise unreadable(entry, error) from error
    if passage:
        yield offset, bytes(passage)


def unreadable(entry: FileEntry, error: OSError) -> DataError:
    """What to tell the user about a file that the system will not give."""
    reason = error.strerror or str(error)
    return DataError(
        f"cannot read {entry.path}: {reason}", "check the file and its permissions, or leave it out"
    )


def _refuse(error: OSError) -> None:
    """`os.walk` passes over what it cannot list; half a corpus must not pass for a whole one."""
    raise DataError(
        f"cannot list {error.filename}: {error.strerror}", "check its permissions, or leave it out"
    ) from error


def _hidden(name: str) -> Drop:
    return Drop(printable(name), printable(name), "hidden", "names that start with a dot are not read")


def _matches(relative: str, globs: list[str]) -> bool:
    name = relative.rpartition("/")[2]
    return any(fnmatch.fnmatchcase(relative if "/" in glob else name, glob) for glob in globs)
