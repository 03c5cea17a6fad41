"""What a tracker that is down the whole run costs the steps beside it.

One run, mirrored to a port where nobody listens. The mirror's process is stopped and let go on by signals in
turn, some steps each, so that a ratio is one of neighbours in time: on a machine whose speed drifts, two runs
differ by more than what is looked for. That all rows arrive when they are sent again is a test
(`tests/chaos/test_surroundings.py`).
"""

import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

BAR = 0.02


def run(quick: bool) -> dict[str, Any]:
    """Seconds of a step with the mirror at work and stopped, and what it costs in each pair of stretches."""
    from data_bench.spread import interval_95, spread
    from train_bench.runs import RECIPE, SEEDBED, assignments, sized

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    length, pairs = (2, 2) if quick else (10, 24)
    settings = {
        **sized(quick, 1, 2),
        "engine.threads_per_rank": 2,
        "tracking.mlflow": True,
        "tracking.uri": f"http://127.0.0.1:{port}",
        # A stretch takes up to two steps more, while it is found out that it has begun and ended.
        "run.steps": (length + 3) * (2 * pairs + 4),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        command = [str(SEEDBED), "train", str(RECIPE), "--run-dir", str(path)]
        command += [part for one in assignments(settings) for part in ("--set", one)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            stretches = _stretches(path, process, length, 2 * pairs)
        finally:
            process.kill()
            process.wait()
    at_work, stopped = stretches[::2], stretches[1::2]
    costs = [a / b - 1 for a, b in zip(at_work, stopped, strict=True)]
    return {
        "step_s": {"mirror at work": spread(at_work), "mirror stopped": spread(stopped)},
        "cost": {**spread(costs), "interval_95": interval_95(costs)},
        "bar": BAR,
    }


def _stretches(path: Path, process: "subprocess.Popen[bytes]", length: int, number: int) -> list[float]:
    """Median seconds of a step in each stretch; the mirror works in the first, third, ... of them."""
    _steps(path, process, 2 * length)  # the mirror starts up beside these
    mirror = _mirror_of(path)
    found = []
    for stretch in range(number):
        os.kill(mirror, signal.SIGSTOP if stretch % 2 else signal.SIGCONT)
        before = len(_steps(path, process, 0))
        # The step under way has seen both.
        rows = _steps(path, process, before + 1 + length)
        found.append(median(row["step_s"] for row in rows[before + 1 : before + 1 + length]))
    os.kill(mirror, signal.SIGKILL)
    return found


def _steps(path: Path, process: "subprocess.Popen[bytes]", number: int) -> list[dict[str, Any]]:
    """The run's steps, once there are so many."""
    from seedbed.files import read_lines

    while True:
        rows = [row for row in read_lines(path / "metrics.jsonl") if row.get("kind") == "train"]
        if len(rows) >= number:
            return rows
        if process.poll() is not None:
            raise RuntimeError(f"the run ended with {process.returncode} after {len(rows)} steps")
        time.sleep(0.02)


def _mirror_of(path: Path) -> int:
    """The process that mirrors the run."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"training.tracking" in words and str(path.resolve()).encode() in words:
                return int(entry.name)
    raise RuntimeError("the run has no mirror")
