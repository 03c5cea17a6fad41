"""What runs inside Ray for a worker of a run: an actor that starts the very same process as a laptop does.

Signals, stacks and exit codes thus work as they do locally. Ray restarts none of it: it says where.
"""

import fcntl
import os
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any

from training.launch import LocalLauncher, Worker, WorkerSpec

WATCH_S = 0.05
SEAL_S = 5.0
"""How long shared storage may take to show on one host what another wrote."""
SIOCGIFADDR = 0x8915


class WorkerHost:
    """One worker process, on the host that Ray has chosen for it."""

    def __init__(self) -> None:
        self._worker: Worker | None = None
        self._has_started = threading.Event()

    def look(self, seal: str, content: str) -> dict[str, Any]:
        """Where this is, and whether the file `seal` reads `content` here."""
        import ray

        address = ray.util.get_node_ip_address()
        sees, deadline = False, time.monotonic() + SEAL_S
        while not (sees := _reads(Path(seal), content)) and time.monotonic() < deadline:
            time.sleep(WATCH_S)
        return {
            "address": address,
            "node": ray.get_runtime_context().get_node_id(),
            "host": socket.gethostname(),
            "interface": interface_of(address),
            "sees": sees,
        }

    def run(self, spec: WorkerSpec) -> int:
        """Start the worker; returns its exit code, once it has ended."""
        self._worker = worker = LocalLauncher().start(spec)
        self._has_started.set()
        while (code := worker.poll()) is None:
            time.sleep(WATCH_S)
        return code

    def wait(self) -> int:
        """The same, for who has lost the first answer."""
        while (code := self._started().poll()) is None:
            time.sleep(WATCH_S)
        return code

    def terminate(self) -> None:
        """See `training.launch.Worker`, as for those below."""
        self._started().terminate()

    def kill(self) -> None:
        self._started().kill()

    def is_stopped(self) -> bool:
        return self._started().is_stopped()

    def stack(self) -> str:
        return self._started().stack()

    def _started(self) -> Worker:
        # Calls are answered side by side.
        self._has_started.wait(SEAL_S)
        if self._worker is None:
            raise RuntimeError("the worker was not started")
        return self._worker


def _reads(path: Path, content: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") == content
    except OSError:
        return False


def interface_of(address: str) -> str:
    """The network interface that has the IPv4 `address`; empty when none has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                found = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, request)[20:24]
            except OSError:
                continue
            if socket.inet_ntoa(found) == address:
                return name
    return ""


def same_process(pid: int, birth: str) -> bool:
    """Whether `pid` is still the process that `birth_of` told of."""
    return bool(birth) and birth_of(pid) == birth


def birth_of(pid: int) -> str:
    """When a process began, in the kernel's own clock; empty when there is none, or only its exit code."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in ("Z", "X") else fields[19]


def own_pid_and_birth() -> tuple[int, str]:
    """Of this process."""
    return os.getpid(), birth_of(os.getpid())
