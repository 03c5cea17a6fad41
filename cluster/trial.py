"""A few steps of a user's own recipe, run to measure something; nothing of them is left."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from seedbed.errors import UsageError
from training import prepare
from training.metrics import surviving_rows
from training.supervisor import Supervisor

WITHOUT: dict[str, Any] = {
    "run.max_restarts": 0,
    "checkpoint.copy_to": '""',
    "checkpoint.mttf_h": 0,
    "checkpoint.keep_every": 0,
    "eval.every_steps": 0,
    "eval.patience": 0,
    "eval.min_delta": 0,
    "eval.restore_best": "false",
    "tracking.mlflow": "false",
    "tracking.layer_norms": 0,
    "tracking.profile": '""',
}
"""What a recipe may ask of a long run, and is no part of what a trial measures."""


def trial_assignments(
    assignments: Sequence[str], steps: int, settings: Mapping[str, Any] | None = None
) -> list[str]:
    """`assignments` of a recipe for a run of `steps` steps that saves once, with `settings` over them."""
    values = {**WITHOUT, "run.steps": steps, "checkpoint.every_steps": steps, **(settings or {})}
    return [*assignments, *(f"{name}={value}" for name, value in values.items())]


@contextlib.contextmanager
def trial_folder(parent: Path) -> Iterator[Path]:
    """A folder in `parent`, where the user has room for runs; removed in the end, as is what it needed.

    Raises UsageError when there can be none.
    """
    missing = [path for path in (parent, *parent.parents) if not path.exists()]
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=".trial-", dir=parent)
    except OSError as error:
        raise UsageError(f"no trial can be run in {parent}: {error}", "choose another folder") from None
    try:
        with folder as name:
            yield Path(name)
    finally:
        with contextlib.suppress(OSError):
            for path in missing:
                path.rmdir()


def run_trial(recipe: str, assignments: Sequence[str], path: Path) -> list[dict[str, Any]]:
    """Train at `path`, a new folder; the rows of its steps. Raises what `Supervisor.supervise` does."""
    run, _ = prepare.start(recipe, assignments, path)
    with run.lock() as lock:
        Supervisor(run, lock).supervise()
    return [row for row in surviving_rows(path) if row["kind"] == "train"]
