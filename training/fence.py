"""Which attempt of a run is the newest, so that workers of an older one can do it no harm.

A host that was cut off goes on with its attempt, while the supervisor has begun another elsewhere. When it
comes back, its workers find here that they have been superseded: they save nothing, and end.
"""

from pathlib import Path

from seedbed.errors import SeedbedError
from seedbed.files import write_json
from training.run_directory import read_json

NAME = "attempt.json"


class Superseded(SeedbedError):
    """Another attempt has taken this one's place."""


def open_attempt(run_dir: Path, attempt: int) -> None:
    """Make `attempt` the newest, durably, before any of its workers is started."""
    write_json(run_dir / NAME, {"attempt": attempt})


def newest_attempt(run_dir: Path) -> int:
    """The attempt that was launched last; -1 when that cannot be read."""
    return int(read_json(run_dir / NAME).get("attempt", -1))


def refuse_superseded(run_dir: Path, attempt: int) -> None:
    """Raises Superseded in a worker of an attempt that is not the newest."""
    newest = newest_attempt(run_dir)
    if newest > attempt:
        raise Superseded(f"attempt {attempt} was given up: attempt {newest} has taken its place")
