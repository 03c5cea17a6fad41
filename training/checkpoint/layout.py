"""Names inside `checkpoints/`, and which steps exist."""

import json
import re
import shutil
from collections.abc import Collection
from pathlib import Path

from seedbed.errors import CheckpointError, UsageError
from seedbed.files import fsync_dir

MANIFEST = "manifest.json"
LABELS = "labels.json"
"""The names of a classifier's labels, in the order of their numbers."""
_STEP = re.compile(r"^step-(\d+)$")
_TEMPORARY = re.compile(r"^step-\d+\.tmp-[0-9a-f]+$")
_ABANDONED = re.compile(r"^abandoned-(\d+)-step-(\d+)$")


def checkpoints_dir(run_dir: Path) -> Path:
    """Where the steps of a run are."""
    return run_dir / "checkpoints"


def step_dir(run_dir: Path, step: int) -> Path:
    """The directory of one finished step."""
    return checkpoints_dir(run_dir) / f"step-{step}"


def temporary_dir(run_dir: Path, step: int, nonce: str) -> Path:
    """Where a step is written until it is whole."""
    return checkpoints_dir(run_dir) / f"step-{step}.tmp-{nonce}"


def list_steps(run_dir: Path) -> list[int]:
    """Steps that have a manifest, oldest first. Whether they are sound is for `Checkpoint.open`."""
    root = checkpoints_dir(run_dir)
    if not root.is_dir():
        return []
    found = ((_STEP.match(entry.name), entry) for entry in root.iterdir())
    return sorted(int(match[1]) for match, entry in found if match and (entry / MANIFEST).is_file())


def resolve(path: Path) -> Path:
    """The step directory that `path` means: itself, or the newest step of a run directory."""
    if (path / MANIFEST).is_file() and _STEP.match(path.name):
        return path
    steps = list_steps(path)
    if steps:
        return step_dir(path, steps[-1])
    if not path.exists():
        raise UsageError(f"{path} does not exist", "give a run directory or one of its checkpoints/step-N")
    raise CheckpointError(
        f"{path} holds no checkpoint", "give a run directory that has saved at least one step"
    )


def run_of(step_path: Path) -> Path:
    """The run directory that a step directory belongs to."""
    return step_path.resolve().parent.parent


def remove_leftovers(run_dir: Path) -> None:
    """Delete what interrupted writers left behind; only the run's owner may call it."""
    root = checkpoints_dir(run_dir)
    for entry in root.iterdir() if root.is_dir() else ():
        if _TEMPORARY.match(entry.name) or entry.name.startswith((".deleting-", ".copying-")):
            shutil.rmtree(entry, ignore_errors=True)


def remove_step(path: Path) -> None:
    """Delete a step so that a crash half way leaves no half checkpoint."""
    doomed = path.with_name(f".deleting-{path.name}")
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def unfinished_steps(run_dir: Path) -> list[Path]:
    """Step directories without a manifest: they stand in the way of the step that they are named after."""
    root = checkpoints_dir(run_dir)
    entries = root.iterdir() if root.is_dir() else ()
    return [entry for entry in entries if _STEP.match(entry.name) and not (entry / MANIFEST).is_file()]


def set_aside(run_dir: Path) -> list[str]:
    """Names of the damaged steps that were put aside."""
    root = checkpoints_dir(run_dir)
    return (
        sorted(e.name for e in root.iterdir() if e.name.startswith("quarantined-")) if root.is_dir() else []
    )


def quarantine(path: Path) -> Path:
    """Put a damaged step aside, so that nothing loads it and its bytes can still be looked at."""
    for count in range(1, 1000):
        aside = path.with_name(f"quarantined-{count}-{path.name}")
        if not aside.exists():
            path.rename(aside)
            fsync_dir(path.parent)
            return aside
    raise CheckpointError(f"{path.parent} holds a thousand quarantined copies of {path.name}", "delete them")


def abandon_after(run_dir: Path, step: int, attempt: int) -> list[int]:
    """Rename the steps after `step` out of the surviving chain; returns them."""
    later = [other for other in list_steps(run_dir) if other > step]
    for other in later:
        _abandon(step_dir(run_dir, other), other, attempt)
    if later:
        fsync_dir(checkpoints_dir(run_dir))
    return later


def make_way(run_dir: Path, step: int, attempt: int) -> None:
    """Rename `step` out of the chain if an attempt before `attempt` wrote it, and came too late with it."""
    path = step_dir(run_dir, step)
    if path.is_dir() and (attempt_of(path) or 0) < attempt:
        _abandon(path, step, attempt)


def attempt_of(path: Path) -> int | None:
    """The attempt that wrote a step; None when that cannot be read."""
    try:
        return int(json.loads((path / MANIFEST).read_bytes()).get("attempt", 0))
    except (OSError, ValueError, AttributeError, TypeError):
        return None


def _abandon(path: Path, step: int, attempt: int) -> None:
    names = (f"abandoned-{number}-step-{step}" for number in range(attempt, attempt + 1000))
    free = next(name for name in names if not path.with_name(name).exists())
    path.rename(path.with_name(free))


def retain(run_dir: Path, keep: int, keep_every: int, needed: Collection[int | None]) -> None:
    """Delete steps that are neither among the newest `keep`, nor every `keep_every`-th, nor `needed`.

    Abandoned steps go once the surviving chain has passed them.
    """
    for path in doomed(run_dir, keep, keep_every, needed):
        remove_step(path)


def doomed(run_dir: Path, keep: int, keep_every: int, needed: Collection[int | None]) -> list[Path]:
    """What `retain` deletes."""
    steps = list_steps(run_dir)
    kept = {*steps[-keep:], *needed}
    if keep_every:
        kept |= {step for step in steps if step % keep_every == 0}
    found = [step_dir(run_dir, step) for step in steps if step not in kept]
    for entry in sorted(checkpoints_dir(run_dir).iterdir()):
        match = _ABANDONED.match(entry.name)
        if match and steps and int(match[2]) <= steps[-1]:
            found.append(entry)
    return found
