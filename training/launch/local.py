"""Workers as processes on this machine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from training.launch.base import Worker, WorkerSpec

STACK_WAIT_S = 2.0
STACK_FILE = "SEEDBED_STACK_FILE"
"""Environment: where a worker writes its stack when it gets SIGUSR1."""
PARENT = "SEEDBED_PARENT_PID"
"""Environment: the process that a worker does not outlive."""


class LocalWorker:
    """A child process; `stack_path` is where it writes its stack when it is asked for it."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], stack_path: Path | None = None) -> None:
        self.name, self.place = name, ""
        self.pid = process.pid
        self._process = process
        self._stack_path = stack_path

    def poll(self) -> int | None:
        return self._process.poll()

    def terminate(self) -> None:
        if self.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        if self.poll() is None:
            self._process.kill()
        self._process.wait()

    def is_stopped(self) -> bool:
        try:
            status = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8")
        except OSError:
            return False
        # The name before it may hold spaces and parentheses.
        return status.rpartition(")")[2].split()[0] in ("T", "t")

    def stack(self) -> str:
        path = self._stack_path
        if path is None or self.poll() is not None or not path.exists():
            return ""
        before = path.stat().st_size
        self._process.send_signal(signal.SIGUSR1)
        self._process.send_signal(signal.SIGCONT)
        deadline, text = time.monotonic() + STACK_WAIT_S, b""
        # It is written in pieces: done when no more has come for a moment.
        while time.monotonic() < deadline:
            time.sleep(0.1)
            found = path.read_bytes()[before:]
            if found and found == text:
                break
            text = found
        return text.decode(errors="replace")


class LocalLauncher:
    """Starts workers with Python's safe path, so that a user's own `data.py` cannot stand in for ours."""

    last_words_s = 2.0

    def make_room(self, num_ranks: int, is_given_up: Callable[[], bool]) -> int:
        return num_ranks

    def has_more_room(self) -> bool:
        return False

    def start(self, spec: WorkerSpec) -> Worker:
        spec.log.parent.mkdir(parents=True, exist_ok=True)
        stack_path = spec.log.with_suffix(".stack")
        with open(spec.log, "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", spec.module, *spec.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    **spec.environment,
                    STACK_FILE: str(stack_path),
                    PARENT: str(os.getpid()),
                },
                pass_fds=spec.inherited_files,
            )
        return LocalWorker(spec.name, process, stack_path)
