"""Building a directory so that it is either whole or absent, by one process at a time."""

import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from seedbed.errors import DataError
from seedbed.files import fsync_dir


@contextmanager
def only_builder_of(out: Path) -> Iterator[Path]:
    """Hold the right to build `out`, and the folder beside it where the build keeps what is finished.

    Others, in any process, wait their turn. The folder outlasts a kill or an error, and is what the next
    build goes on from; `remove` it when the dataset is there. The system takes a lock from a process
    that ends, so no kill leaves it behind.
    """
    lock, folder = _lock_of(out), _folder_of(out)
    with _explained(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _acquire(lock, out)
    try:
        with _explained(out):
            folder.mkdir(exist_ok=True)
            yield folder
    finally:
        with suppress(OSError):
            folder.rmdir()  # only when nothing is finished
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def clear(out: Path) -> None:
    """Remove what a kill just after `out` was published left beside it."""
    if _lock_of(out).exists() or _folder_of(out).exists():
        with only_builder_of(out) as folder:
            shutil.rmtree(folder)


def publish(folder: Path, out: Path) -> None:
    """Make `folder`, whose files are synced, appear as `out`: absent or an empty directory until now."""
    fsync_dir(folder)
    os.rename(folder, out)
    fsync_dir(out.parent)


def _lock_of(out: Path) -> Path:
    return out.parent / f".{out.name}.lock"


def _folder_of(out: Path) -> Path:
    return out.parent / f".{out.name}.building"


@contextmanager
def _explained(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot build {out}: {error.strerror or error}",
            "make room or set permissions there, and run the same command again: it goes on from what is "
            "finished; or build on another (local) disk",
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
