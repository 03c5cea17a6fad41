"""Building a directory so that it is either whole or absent, by one process at a time."""

import errno
import fcntl
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
    them. The lock belongs to the process, so no kill leaves it behind.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    lock = out.parent / f".{out.name}.lock"
    descriptor = _acquire(lock, out)
    try:
        for stale in out.parent.glob(f"{_prefix(out)}*"):
            shutil.rmtree(stale, ignore_errors=True)
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


@contextmanager
def building(out: Path) -> Iterator[Path]:
    """An empty directory that becomes `out` when the block ends well, and vanishes when it does not.

    Call it as the `only_builder_of(out)`. The files in it are to be synced by who writes them.
    """
    temporary = out.parent / f"{_prefix(out)}{secrets.token_hex(4)}"
    temporary.mkdir()
    try:
        yield temporary
        fsync_dir(temporary)
        os.rename(temporary, out)
        fsync_dir(out.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(f"no space left to write {out}", "free some, or build on another disk") from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _prefix(out: Path) -> str:
    return f".{out.name}.building-"


def _acquire(lock: Path, out: Path) -> int:
    waited = False
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _try_lock(descriptor):
                if not waited:
                    print(f"another process is building {out}; waiting for it", file=sys.stderr)
                    waited = True
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            # The last holder removes the file; a lock on a removed file is a lock on nothing.
            if os.path.exists(lock) and os.path.samestat(os.fstat(descriptor), os.stat(lock)):
                return descriptor
        except FileNotFoundError:
            pass
        except OSError as error:
            os.close(descriptor)
            raise DataError(
                f"cannot lock {lock}: {error.strerror}", "build on a file system that has locks, such as a local disk"
            ) from error
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
