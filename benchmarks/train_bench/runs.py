"""Runs of `seedbed train`, timed from outside: by the moments at which their steps were recorded."""

import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from training.metrics import surviving_rows

RECIPE = Path(__file__).with_name("gpt.toml")
SEEDBED = Path(sys.executable).with_name("seedbed")
QUICK = {
    "data.vocab_size": 512, "model.vocab_size": 512, "model.num_layers": 1, "model.width": 64,
    "model.num_heads": 2, "model.context": 32, "batch.micro_batch_size": 2, "batch.tokens_per_step": 128,
}  # fmt: skip
MICRO_BATCH, CONTEXT = "batch.micro_batch_size", "model.context"


def sized(quick: bool, num_micro_batches: int, micro_batch_size: int = 8) -> dict[str, Any]:
    """Settings of the recipe's own shape, or of one that takes seconds, for so many micro-batches a step."""
    sizes = {MICRO_BATCH: micro_batch_size, CONTEXT: 256, **(QUICK if quick else {})}
    return {**sizes, "batch.tokens_per_step": num_micro_batches * sizes[MICRO_BATCH] * sizes[CONTEXT]}


def assignments(settings: dict[str, Any]) -> list[str]:
    """As `--set` takes them."""
    return [f"{name}={str(value).lower()}" for name, value in settings.items()]


def timed_run(path: Path, settings: dict[str, Any], *, steps: int, warm_up: int) -> dict[str, Any]:
    """Tokens per second of a run, all that the loop does included, its first `warm_up` steps left out.

    Raises SystemExit, with the end of what it said, for a run that fails.
    """
    sets = assignments({**settings, "run.steps": warm_up + steps})
    command = [str(SEEDBED), "train", str(RECIPE), "--run-dir", str(path)]
    command += [part for one in sets for part in ("--set", one)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    rows = [row for row in surviving_rows(path) if row["kind"] == "train"]
    seconds = rows[-1]["time"] - rows[warm_up - 1]["time"]
    return {
        "tokens_per_s": settings["batch.tokens_per_step"] * steps / seconds,
        "step_s": statistics.median(row["step_s"] for row in rows[warm_up:]),
        "memory_bytes": rows[-1]["memory_bytes"],
        "loss": rows[-1]["loss"],
    }
