"""Python that a model wrote, run with little: time, memory and output; no files to write, no network.

A process of its own, in an empty folder that is deleted afterwards; the process takes from itself what it
must not have before it reads the code (`sandbox_guard`): the kernel's limits, namespaces without network and
other processes where the kernel lets one have them, and an audit hook (PEP 578) that refuses what such code
has no business with. That keeps from accidents and from what a policy finds by trying. It is no wall against
an adversary who writes the code: for that, give it a machine of its own.
"""

import contextlib
import json
import os
import secrets
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

GUARD = Path(__file__).with_name("sandbox_guard.py")
MAX_OUTPUT = 1 << 16

End = Literal[
    "finished", "raised", "timeout", "memory", "output", "forbidden", "exited", "killed", "unavailable"
]
"""It came to its last line; it raised; it took too long; it asked for too much memory, or said too much; it
tried what is refused; it ended itself before its last line, or by a signal; the sandbox did not start."""


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
    is_isolated: bool = False
    """Whether the kernel gave it namespaces without a network; without, the audit hook alone keeps from
    it."""


def run_python(source: str, limits: Limits = Limits(), stdin: str = "") -> Ran:
    """Run `source` as a script. What it leaves running ends with it."""
    # Told once the last line was reached: code that exits with 0 before it has not.
    nonce = secrets.token_hex(16)
    given = {
        "nonce": nonce,
        "seconds": limits.seconds,
        "memory_bytes": limits.memory_bytes,
        "source": source,
        "stdin": stdin,
    }
    with tempfile.TemporaryDirectory(prefix="seedbed-sandbox-") as folder:
        # Isolated, and without site: nothing of the user's environment or packages is there.
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(GUARD)],
            cwd=folder,
            env={"PATH": "", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            out, err, cause = _listen(process, json.dumps(given).encode(), limits)
        finally:
            _kill(process)
    said = err.decode(errors="replace").strip().splitlines()
    told = [line for line in said if line.startswith(nonce)]
    error = next((line for line in reversed(said) if not line.startswith(nonce)), "")
    end = cause or _end_of(process.returncode, error, [line[len(nonce) :].strip() for line in told])
    output = out[: limits.output_bytes].decode(errors="replace")
    return Ran(end, output, error, is_isolated=f"{nonce} isolated" in told)


def _listen(
    process: "subprocess.Popen[bytes]", given: bytes, limits: Limits
) -> tuple[bytes, bytes, End | None]:
    """What it says, as far as that is wanted, and why it was not listened to any longer."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    said = {process.stdout: bytearray(), process.stderr: bytearray()}
    deadline, left = time.monotonic() + limits.seconds, memoryview(given)
    with selectors.DefaultSelector() as selector:
        os.set_blocking(process.stdin.fileno(), False)
        selector.register(process.stdin, selectors.EVENT_WRITE)
        for file in said:
            selector.register(file, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready and time.monotonic() >= deadline:
                return bytes(said[process.stdout]), bytes(said[process.stderr]), "timeout"
            for key, _ in ready:
                if key.fileobj is process.stdin:
                    try:
                        left = left[os.write(key.fd, left[: 1 << 16]) :]
                    except BrokenPipeError:
                        left = left[:0]
                    if not left:
                        selector.unregister(process.stdin)
                        process.stdin.close()
                    continue
                piece = os.read(key.fd, 1 << 16)
                if not piece:
                    selector.unregister(key.fileobj)
                found = said[key.fileobj]  # type: ignore[index]
                found += piece
                if len(found) > limits.output_bytes:
                    return bytes(said[process.stdout]), bytes(said[process.stderr]), "output"
    try:
        process.wait(max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return bytes(said[process.stdout]), bytes(said[process.stderr]), "timeout"
    return bytes(said[process.stdout]), bytes(said[process.stderr]), None


def _kill(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for file in (process.stdin, process.stdout, process.stderr):
        if file is not None and not file.closed:
            # What was not written any more may fail to be flushed.
            with contextlib.suppress(OSError):
                file.close()


def _end_of(code: int, error: str, told: list[str]) -> End:
    """`told` by the guard: that it began, and that the last line was reached."""
    if "began" not in told:
        return "unavailable"
    if "done" in told:
        return "finished"
    if code == -signal.SIGXCPU:
        return "timeout"
    if code < 0:
        return "killed"
    if error.startswith("MemoryError"):
        return "memory"
    if error.startswith("PermissionError: the sandbox"):
        return "forbidden"
    # A traceback ends in 1; whoever leaves by itself says no error.
    return "raised" if error and code == 1 else "exited"
