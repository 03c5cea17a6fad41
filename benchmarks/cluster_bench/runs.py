"""A cluster on this machine, and runs of the same recipe with and without it."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

SEEDBED = str(Path(sys.executable).with_name("seedbed"))
SETTINGS = {
    "tracking.mlflow": "false",
    "eval.every_steps": 0,
    "engine.num_ranks": 2,
    "engine.threads_per_rank": 1,
    "engine.device": '"cpu"',
    "checkpoint.every_steps": 1_000_000,
}


@contextlib.contextmanager
def local_cluster() -> Iterator[Path]:
    """A folder with a cluster, which ends with it."""
    with tempfile.TemporaryDirectory(prefix="seedbed-bench-") as name:
        folder = Path(name)
        cluster = {"env": environment(folder, "submit"), "capture_output": True}
        subprocess.run([SEEDBED, "cluster", "up"], check=True, **cluster)
        try:
            yield folder
        finally:
            subprocess.run([SEEDBED, "cluster", "down", "--now"], check=False, **cluster)


def environment(folder: Path, verb: str) -> dict[str, str]:
    """Of a command: the processes of `train` and of `submit`, Ray's own too, tell by it whose they are."""
    return {**os.environ, "SEEDBED_HOME": str(folder / f"home-{verb}"), "RAY_ADDRESS": ""}


def started(folder: Path, verb: str, run: Path, steps: int) -> "subprocess.Popen[bytes]":
    """`seedbed VERB`, on its way."""
    settings = {**SETTINGS, "run.steps": steps}
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    command = [SEEDBED, verb, "gpt-demo", "--run-dir", str(run), *sets]
    return subprocess.Popen(
        command, env=environment(folder, verb), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
