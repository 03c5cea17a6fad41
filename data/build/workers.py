"""Who does the work of a build: this process, several processes, or (in `cluster`) Ray tasks.

A task is plain JSON and a function of this package that any process on the same file system can run:
`function(task, advance) -> result`, single-threaded. Results come back in any order.
"""

import ctypes
import gc
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, ProcessPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from data.sources import Advance
from seedbed.errors import SeedbedError
from seedbed.files import write_atomic

Task = dict[str, Any]
Result = dict[str, Any]
Function = Callable[[Task, Advance], Result]

POLL_S = 0.2
PR_SET_PDEATHSIG = 1

SINGLE_THREADED = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
"""The environment of a worker that shares its machine with others."""


class Workers(Protocol):
    """Runs tasks."""

    num_workers: int

    def run(
        self, function: Function, tasks: Sequence[Task], advance: Advance, scratch: Path
    ) -> Iterator[Result]:
        """The results, each as soon as it is there; the first error ends it, with all other work.

        `scratch` is an empty folder that all workers see.
        """


@contextmanager
def _without_collection() -> Iterator[None]:
    """Documents are many objects and no cycles: looking for these takes a tenth of the time of a task."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class InProcess:
    """One worker: the caller."""

    num_workers = 1

    def run(
        self, function: Function, tasks: Sequence[Task], advance: Advance, scratch: Path
    ) -> Iterator[Result]:
        for task in tasks:
            with _without_collection():
                result = function(task, advance)
            yield result


class LocalProcesses:
    """`num_workers` processes of this machine. They end with the one that started them, however it ends."""

    def __init__(self, num_workers: int) -> None:
        self.num_workers = num_workers

    def run(
        self, function: Function, tasks: Sequence[Task], advance: Advance, scratch: Path
    ) -> Iterator[Result]:
        if self.num_workers == 1 or len(tasks) <= 1:
            yield from InProcess().run(function, tasks, advance, scratch)
            return
        context = multiprocessing.get_context("spawn")
        num_workers = min(self.num_workers, len(tasks))
        progress = ProgressFolder(scratch, advance)
        with ProcessPoolExecutor(num_workers, context, _end_with_parent, (os.getpid(),)) as pool:
            waiting = {
                pool.submit(run_reporting, function, task, str(progress.file(number)))
                for number, task in enumerate(tasks)
            }
            try:
                while waiting:
                    done, waiting = wait(waiting, POLL_S, FIRST_COMPLETED)
                    progress.poll()
                    for future in done:
                        yield future.result()
            except BrokenExecutor as error:
                raise SeedbedError(
                    "a worker of the build died, perhaps killed for want of memory",
                    "the same command goes on from the finished parts; try fewer --workers",
                ) from error
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


class ProgressFolder:
    """Bytes read by workers elsewhere, which each write theirs to a file; `poll` tells what is new."""

    def __init__(self, folder: Path, advance: Advance) -> None:
        self._folder, self._advance = folder, advance
        self._told = 0

    def file(self, number: int) -> Path:
        return self._folder / str(number)

    def poll(self) -> None:
        total = sum(json.loads(file.read_bytes()) for file in self._folder.iterdir() if file.name.isdigit())
        self._advance(total - self._told)
        self._told = total


def run_reporting(function: Function, task: Task, file: str) -> Result:
    """Run a task of which `file` tells how many bytes it has read."""
    done, written = 0, 0.0

    def advance(num_bytes: int) -> None:
        nonlocal done, written
        done += num_bytes
        if (now := time.monotonic()) - written > POLL_S:
            written = now
            tell()

    def tell() -> None:
        with suppress(OSError):  # progress is expendable, a full disk or not
            write_atomic(Path(file), str(done), durable=False)

    with _without_collection():
        result = function(task, advance)
    tell()
    return result


def _end_with_parent(parent: int) -> None:
    """In a new worker: one thread each, no orphans, and Ctrl-C is the parent's to handle."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(SINGLE_THREADED)
