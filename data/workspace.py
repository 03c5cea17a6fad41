"""Building a directory so that it is either whole or absent, by one process at a time."""

import fcntl
import glob
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seedbed.errors import DataError
from seedbed.files import fsync_dir


@contextmanager
def only_builder_of(out: Path) -> Iterator[None]:
    """Hold the right to build `out`; others, in any process, wait their turn.

    Whoever holds it knows that unfinished directories beside `out` have no living owner, and removes
    them. The system takes a lock from a process that ends, so no kill leaves it behind.
    """
    lock = out.parent / f".{out.name}.lock"
    with _explained(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _acquire(lock, out)
    try:
        for stale in out.parent.glob(glob.escape(_prefix(out)) + "*"):
            shutil.rmtree(stale, ignore_errors=True)
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


@contextmanager
def scratch_directory(out: Path) -> Iterator[Path]:
    """A new directory beside `out` to build in, removed at the end if it was not published.

    To be called by the `only_builder_of(out)`.
    """
    folder = out.parent / f"{_prefix(out)}{secrets.token_hex(4)}"
    try:
        with _explained(out):
            folder.mkdir()
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(folder: Path, out: Path) -> None:
    """Make `folder`, whose files are synced, appear as `out`: absent or an empty directory until now."""
    fsync_dir(folder)
    os.rename(folder, out)
    fsync_dir(out.parent)


def _prefix(out: Path) -> str:
    return f".{out.name}.building-"


@contextmanager
def _explained(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot build {out}: {error.strerror or error}",
            "make room or set permissions there, or build on another (local) disk",
        ) from error


def _acquire(lock: Path, out: Path) -> int:
    """A descriptor that holds the lock. Whoever lets go of it removes the file first."""
    announced = False
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _try_lock(descriptor):
                if not announced:
                    print(f"another process is building {out}; waiting for it", file=sys.stderr)
                    announced = True
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            # What was waited for may be a removed file, and a lock on that keeps nobody out.
            if _is_file_at(descriptor, lock):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_file_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
