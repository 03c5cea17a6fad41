"""Workers as processes on this machine."""

import os
import signal
import subprocess
import sys

from training.launch.base import Worker, WorkerSpec


class LocalWorker:
    """A child process."""

    def __init__(self, name: str, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.pid = process.pid
        self._process = process

    def poll(self) -> int | None:
        return self._process.poll()

    def terminate(self) -> None:
        if self.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        if self.poll() is None:
            self._process.kill()
        self._process.wait()


class LocalLauncher:
    """Starts workers with Python's safe path, so that a user's own `data.py` cannot stand in for ours."""

    def start(self, spec: WorkerSpec) -> Worker:
        spec.log.parent.mkdir(parents=True, exist_ok=True)
        with open(spec.log, "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", spec.module, *spec.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **spec.environment},
                pass_fds=spec.inherited_files,
            )
        return LocalWorker(spec.name, process)
