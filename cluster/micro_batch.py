"""What `seedbed train --micro-batch auto` does: the largest micro-batch that fits, found before a run begins.

Sizes divide the batch. The plan says with which to begin; real steps of the recipe, on all its ranks, say
whether it fits. What is found becomes a setting of the run like any other: a resume on any ranks keeps it.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cluster.output import note
from cluster.trial import run_trial, trial_assignments, trial_folder
from seedbed.errors import ConfigError, TrainingError, UsageError
from seedbed.progress import human_bytes
from training import prepare
from training.batch_layout import batch_layout
from training.config import Config
from training.devices import available_bytes, resolve_hardware
from training.plan import memory_by_part
from training.recipes import load_config, parse_overrides

# The optimizer's state is there from the second step on.
STEPS = 2
# Of the free memory; the rest is for what else runs, and for batches that take a little more.
SHARE = 0.9


def largest_micro_batch(
    recipe: str, assignments: Sequence[str], folder: Path, limit_bytes: int | None = None
) -> int:
    """The largest `batch.micro_batch_size` found with which `recipe` stays below `limit_bytes` per rank.

    The limit is most of what is free now, unless given. Trials run in `folder`, where the run will be.
    Raises TrainingError when not even one sequence fits.
    """
    if "micro_batch_size" in parse_overrides(assignments).get("batch", {}):
        raise UsageError(
            "--micro-batch and --set batch.micro_batch_size contradict each other", "leave one out"
        )
    config = prepare.sized(resolve_hardware(load_config(recipe, assignments)))
    limit = limit_bytes or round(SHARE * available_bytes(config.engine))
    sizes = list(possible_sizes(config))

    def measure(size: int) -> int | None:
        measured = _measured_bytes(recipe, assignments, size, folder)
        told = "out of memory" if measured is None else human_bytes(measured)
        note(f"micro-batch of {size}: {told} per rank; {human_bytes(limit)} may be used")
        return measured

    guess = next((size for size in sizes if _planned_bytes(config, size) <= limit), sizes[-1])
    found = largest_that_fits(sizes, guess, limit, measure)
    if found is None:
        raise TrainingError(
            f"not even a micro-batch of {sizes[-1]} fits into {human_bytes(limit)} per rank",
            'set engine.checkpointing = "full", raise objective.num_chunks, or lower model.context',
        )
    return found


def largest_that_fits(
    sizes: Sequence[int], guess: int, limit: int, measure: Callable[[int], int | None]
) -> int | None:
    """The largest of `sizes` (falling) that `measure` finds within `limit` bytes; None when none is.

    Begins with `guess`. From a size that does not fit it goes down to one that may; from one that fits up to
    one that would if all memory grew with the size, which is more than it does. One failure on the way up
    ends the search: what lies between is not tried.
    """
    size: int | None = guess
    best, failed = 0, sizes[0] + 1
    while size is not None:
        measured = measure(size)
        if measured is not None and measured <= limit:
            best = size
            above = min(failed - 1, size * limit // measured)
            size = next((s for s in sizes if best < s <= above), None)
        elif best:
            break
        else:
            failed = size
            below = size // 2 if measured is None else min(size - 1, size * limit // measured)
            size = next((s for s in sizes if s <= below), sizes[-1] if size != sizes[-1] else None)
    return best or None


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


def _measured_bytes(recipe: str, assignments: Sequence[str], size: int, folder: Path) -> int | None:
    """Peak memory of a rank in the first steps; None when they could not be trained for want of memory."""
    values = trial_assignments(assignments, STEPS, {"batch.micro_batch_size": size})
    with trial_folder(folder) as path:
        try:
            rows = run_trial(recipe, values, path / "run")
        except TrainingError as error:
            if "memory" in error.message or "SIGKILL" in error.message:
                return None
            raise
    return max(row["memory_bytes"] for row in rows)
