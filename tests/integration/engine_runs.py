"""Starts real processes that train a small model under an engine, and reads what they left."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.integration.engine_worker import stored

WORKER = Path(__file__).with_name("engine_worker.py")
# A width that is no multiple of 16, so that rows do not begin where vectors do.
MODEL = {
    "num_layers": 2, "width": 36, "num_heads": 3, "context": 16, "vocab_size": 67,
    "dropout": 0.1, "drop_path": 0.2,
}  # fmt: skip
BATCH = {"tokens_per_step": 8 * 2 * 16, "micro_batch_size": 2}


def job(
    folder: Path,
    engine: str,
    *,
    steps: int,
    first: int = 0,
    load: Path | None = None,
    lr: float = 1e-2,
    watch: bool = False,
    passes: dict[int, str] | None = None,
    optimizer: dict[str, Any] | None = None,
    tables: dict[str, Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """What one training is told; `options` are those of the engine, `tables` others in place of ours."""
    folder.mkdir(parents=True)
    return {
        "folder": str(folder),
        "config": {
            "model": MODEL,
            "batch": BATCH,
            "optimizer": {"clip_norm": 0.5, **(optimizer or {})},
            "engine": {"name": engine, "precision": "fp32", **options},
            **(tables or {}),
        },
        "steps": steps,
        "first": first,
        "lr": lr,
        "watch": watch,
        "passes": {str(step): how for step, how in (passes or {}).items()},
        **({"load": str(load)} if load else {}),
    }


def run_jobs(jobs: Sequence[dict[str, Any]], num_ranks: int, timeout_s: float = 300) -> None:
    """Do the jobs one after another, on the same processes."""
    rendezvous = Path(jobs[0]["folder"]) / "rendezvous"
    command = [sys.executable, "-P", str(WORKER), str(rendezvous)]
    processes = [
        subprocess.Popen([*command, str(rank), str(num_ranks), json.dumps(jobs)]) for rank in range(num_ranks)
    ]
    try:
        assert [process.wait(timeout=timeout_s) for process in processes] == [0] * num_ranks
    finally:
        for process in processes:
            process.kill()


def train(folder: Path, engine: str, num_ranks: int, **settings: Any) -> Path:
    """A folder with the state after some steps; settings as for `job`."""
    run_jobs([job(folder, engine, **settings)], num_ranks)
    return folder


def digest(folder: Path, stage: str = "state") -> str:
    """SHA-256 over all weights and moments, put together from the ranks' parts."""
    found = hashlib.sha256()
    for name, values in sorted(stored(folder, stage).items()):
        found.update(name.encode())
        found.update(values.numpy().tobytes())
    return found.hexdigest()


def told(folder: Path) -> dict[str, Any]:
    """The losses and gradient norms of the steps, and norms by layer of the last that was watched."""
    return json.loads((folder / "out-0.json").read_text())
