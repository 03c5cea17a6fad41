"""What `seedbed train --micro-batch auto` does: the largest micro-batch that fits, found before a run begins.

Sizes divide the batch. The plan says with which to begin; real steps of the recipe, on all its ranks, say
whether it fits. What is found becomes a setting of the run like any other: a resume on any ranks keeps it.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cluster.output import note
from seedbed.errors import ConfigError, TrainingError, UsageError
from seedbed.progress import human_bytes
from training import prepare
from training.batch_layout import batch_layout
from training.config import Config
from training.devices import available_bytes, resolve_hardware
from training.metrics import surviving_rows
from training.plan import memory_by_part
from training.recipes import load_config, parse_overrides
from training.supervisor import Supervisor

# The optimizer's state is there from the second step on.
STEPS = 2
# Of the free memory; the rest is for what else runs, and for batches that take a little more.
SHARE = 0.9


def largest_micro_batch(recipe: str, assignments: Sequence[str], limit_bytes: int | None = None) -> int:
    """The largest `batch.micro_batch_size` with which `recipe` stays below `limit_bytes` per rank.

    The limit is most of what is free now, unless given. Raises TrainingError when not even one sequence fits.
    """
    if "micro_batch_size" in parse_overrides(assignments).get("batch", {}):
        raise UsageError(
            "--micro-batch and --set batch.micro_batch_size contradict each other", "leave one out"
        )
    config = prepare.sized(resolve_hardware(load_config(recipe, assignments)))
    limit = limit_bytes or round(SHARE * available_bytes(config.engine))
    sizes = list(possible_sizes(config))
    size: int | None = next((s for s in sizes if _planned_bytes(config, s) <= limit), sizes[-1])
    while size is not None:
        measured = _measured_bytes(recipe, assignments, size)
        told = "out of memory" if measured is None else human_bytes(measured)
        note(f"micro-batch of {size}: {told} per rank; {human_bytes(limit)} may be used")
        if measured is not None and measured <= limit:
            return size
        below = size // 2 if measured is None else min(size - 1, size * limit // measured)
        size = next((s for s in sizes if s <= below), sizes[-1] if size != sizes[-1] else None)
    raise TrainingError(
        f"not even a micro-batch of {sizes[-1]} fits into {human_bytes(limit)} per rank",
        'set engine.checkpointing = "full", raise objective.num_chunks, or lower model.context',
    )


def possible_sizes(config: Config) -> Iterator[int]:
    """Every micro-batch size that makes up `config`'s batch on its ranks, the largest first.

    Raises ConfigError when there is none.
    """
    batch_layout(_with_size(config, 1))
    for size in range(config.batch.tokens_per_step // config.model.context, 0, -1):
        with contextlib.suppress(ConfigError):
            batch_layout(_with_size(config, size))
            yield size


def _with_size(config: Config, size: int) -> Config:
    return config.model_copy(update={"batch": config.batch.model_copy(update={"micro_batch_size": size})})


def _planned_bytes(config: Config, size: int) -> int:
    return memory_by_part(_with_size(config, size))["total"]


def _measured_bytes(recipe: str, assignments: Sequence[str], size: int) -> int | None:
    """Peak memory of a rank in the first steps; None when they could not be trained for want of memory."""
    settings: dict[str, Any] = {
        "batch.micro_batch_size": size,
        "run.steps": STEPS,
        "run.max_restarts": 0,
        "checkpoint.every_steps": STEPS,
        "eval.every_steps": 0,
        "tracking.mlflow": "false",
        "tracking.profile": '""',
    }
    values = [*assignments, *(f"{name}={value}" for name, value in settings.items())]
    with tempfile.TemporaryDirectory(prefix="seedbed-micro-batch-") as folder:
        run, _ = prepare.start(recipe, values, Path(folder, "run"))
        with run.lock() as lock:
            try:
                Supervisor(run, lock).supervise()
            except TrainingError as error:
                if "memory" in error.message or "SIGKILL" in error.message:
                    return None
                raise
        return max(row["memory_bytes"] for row in surviving_rows(run.path) if row["kind"] == "train")
