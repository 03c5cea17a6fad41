"""Python that a model wrote, run with little: time, memory, no files to write, no network, no processes.

A process of its own, in an empty folder that is deleted afterwards, with the kernel's limits (`setrlimit`),
in namespaces without a network where the kernel lets one have them, and behind an audit hook (PEP 578) that
refuses what such code has no business with. The hook alone would not stop code that is out to break it; the
limits and namespaces are there whatever the code does. For code of an adversary, give the machine to it.
"""

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWIPC = 0x10000000, 0x40000000, 0x08000000
GUARD = Path(__file__).with_name("sandbox_guard.py")
MAX_OUTPUT = 1 << 16

End = Literal["finished", "raised", "timeout", "memory", "forbidden", "killed"]
"""It came to its end; it raised; it took too long; it asked for too much memory; it tried what is refused; a
signal ended it."""


@dataclass(frozen=True)
class Limits:
    """What a piece of code may take."""

    seconds: float = 5.0
    """Wall time, the start of Python included; processor time is limited to the same."""
    memory_bytes: int = 512 * 2**20
    output_bytes: int = MAX_OUTPUT


@dataclass(frozen=True)
class Ran:
    """How it ended, what it printed, and the last line of what it said of its error."""

    end: End
    output: str
    error: str


def run_python(source: str, limits: Limits = Limits(), stdin: str = "") -> Ran:
    """Run `source` as a script. What it leaves running ends with it."""
    with tempfile.TemporaryDirectory(prefix="seedbed-sandbox-") as folder:
        Path(folder, "main.py").write_text(source, encoding="utf-8", errors="replace")
        # Isolated, and without site: nothing of the user's environment or packages is there.
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(GUARD), "main.py"],
            cwd=folder,
            env={"PATH": "", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=partial(_confine, limits),
        )
        try:
            out, err = process.communicate(stdin.encode(), timeout=limits.seconds)
            is_late = False
        except subprocess.TimeoutExpired:
            is_late = True
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        if is_late:
            out, err = process.communicate()
    output = out[: limits.output_bytes].decode(errors="replace")
    lines = err.decode(errors="replace").strip().splitlines()
    error = lines[-1] if lines else ""
    return Ran(_end_of(process.returncode, error, is_late), output, error)


def _end_of(code: int, error: str, is_late: bool) -> End:
    if is_late or code == -signal.SIGXCPU:
        return "timeout"
    if code == 0:
        return "finished"
    if code < 0:
        return "killed"
    if error.startswith("MemoryError"):
        return "memory"
    return "forbidden" if error.startswith("PermissionError: the sandbox") else "raised"


def _confine(limits: Limits) -> None:
    """In the child, before Python starts anew."""
    seconds = max(1, int(limits.seconds + 0.999))
    for what, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_FSIZE, limits.output_bytes),
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (least, least))
    # Where it is refused, the audit hook is what keeps from the network.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC) != 0:
        libc.unshare(CLONE_NEWNET)
