"""The workers of a dataset build as Ray tasks, on a cluster whose hosts share one file system."""

import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data.build.workers import (
    POLL_S,
    SINGLE_THREADED,
    Advance,
    Function,
    ProgressFolder,
    Result,
    Task,
    run_reporting,
)
from seedbed.errors import SeedbedError, UsageError

CONNECT_S = 5.0


class RayWorkers:
    """Up to `num_workers` tasks at once, one core each, on the cluster at `address`.

    Without an address, $RAY_ADDRESS; without that, a cluster of this machine alone that ends with the build.
    A task whose host dies is run again: it leaves nothing behind unless it is finished.
    """

    def __init__(self, num_workers: int, address: str = "") -> None:
        try:
            import ray
        except ImportError as error:
            raise UsageError("--on ray needs the ray package", "pip install 'seedbed[ray]'") from error
        self._ray = ray
        self.num_workers = num_workers
        self._address = address or os.environ.get("RAY_ADDRESS", "")

    def run(
        self, function: Function, tasks: Sequence[Task], advance: Advance, scratch: Path
    ) -> Iterator[Result]:
        if not tasks:
            return
        ray = self._ray
        self._connect()
        progress = ProgressFolder(scratch, advance)
        remote = ray.remote(num_cpus=1, max_retries=2)(run_reporting)
        todo = list(enumerate(tasks))[::-1]
        waiting: list[Any] = []
        try:
            while todo or waiting:
                while todo and len(waiting) < self.num_workers:
                    number, task = todo.pop()
                    waiting.append(remote.remote(function, task, str(progress.file(number).absolute())))
                done, waiting = ray.wait(waiting, timeout=POLL_S)
                progress.poll()
                for reference in done:
                    yield self._result(reference)
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)

    def _connect(self) -> None:
        ray = self._ray
        if ray.is_initialized():
            return
        options = {"env_vars": SINGLE_THREADED}
        try:
            if self._address:
                _refuse_silence(self._address)
                ray.init(self._address, runtime_env=options, logging_level="error", log_to_driver=False)
            else:
                ray.init(
                    num_cpus=self.num_workers,
                    include_dashboard=False,
                    runtime_env=options,
                    logging_level="error",
                    log_to_driver=False,
                )
        except (OSError, ValueError, RuntimeError) as error:
            raise SeedbedError(
                f"no Ray cluster answers at {self._address or 'this machine'}: {error}",
                "start one with `ray start --head`, or give its token (RAY_AUTH_TOKEN_PATH), or build with "
                "--workers on this machine",
            ) from error

    def _result(self, reference: Any) -> Result:
        exceptions = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from None
        except exceptions.RayError as error:
            raise SeedbedError(
                f"a worker of the build was lost: {error}", "the same command goes on from the finished parts"
            ) from error


def _refuse_silence(address: str) -> None:
    """OSError when nobody listens at HOST:PORT, which Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), CONNECT_S).close()
