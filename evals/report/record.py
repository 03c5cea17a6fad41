"""Everything that a report shows of a run, read from the run's own files.

A run may be going on, have failed early, or have lost the end of a file in a crash: whatever is absent or
damaged is empty here, and no reader of a `RunRecord` has to ask whether a file was there.
"""

import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedbed.files import read_lines
from training.metrics import read_events, surviving_rows
from training.run_directory import read_json

Row = dict[str, Any]

# Longer than any step, validation or save of a healthy run that reports in.
SILENCE_S = 300.0


@dataclass(frozen=True)
class RunRecord:
    """What a run directory says."""

    path: Path
    status: Row
    config: dict[str, Row]
    recipe: Row
    plan: Row
    rows: list[Row]
    """metrics.jsonl, the surviving chain."""
    written: list[Row]
    """The training rows of all attempts, those that a later one has undone too, as they were written."""
    events: list[Row]
    samples: list[Row]
    heartbeats: list[Row]
    evals: list[Row]
    """Results of the evaluation tasks, in the order of their steps."""
    dataset_path: str
    manifest: Row
    """Of the dataset, if it is still where the run found it."""

    def of_kind(self, kind: str) -> list[Row]:
        """Surviving metrics rows of one kind, in the order of their steps."""
        rows = [row for row in self.rows if row.get("kind") == kind and number(row.get("step")) is not None]
        return sorted(rows, key=lambda row: row["step"])

    @property
    def name(self) -> str:
        return str(self.config.get("run", {}).get("name") or self.path.resolve().name)

    @property
    def state(self) -> str:
        return str(self.status.get("state", "unknown"))

    @property
    def last_sign_of_life(self) -> float | None:
        """When the run last wrote anything, in Unix time."""
        times = [
            number(row.get("time"))
            for row in (*self.rows[-1:], *self.events[-1:], *self.heartbeats, self.status)
        ]
        return max((time for time in times if time is not None), default=None)

    def silence_s(self, now: float) -> float:
        """How long a run that says it is going has said nothing; 0 for one that reports in or is over."""
        last = self.last_sign_of_life
        if self.state not in ("starting", "running") or last is None or now - last < SILENCE_S:
            return 0.0
        return now - last

    @property
    def num_steps(self) -> int | None:
        """Steps that the run is meant to take."""
        steps = number(self.config.get("run", {}).get("steps")) or number(self.plan.get("steps"))
        return int(steps) if steps else None

    @property
    def num_undone(self) -> int:
        """Training rows that a later attempt has undone."""
        return len(self.written) - sum(row.get("kind") == "train" for row in self.rows)

    @property
    def attempts(self) -> list[Row]:
        return [event for event in self.events if event.get("kind") == "attempt_started"]

    def count(self, kind: str) -> int:
        """How many events of one kind there were."""
        return sum(event.get("kind") == kind for event in self.events)

    def step_at(self, time: float) -> float | None:
        """The last step that had been finished by then, whether or not it was undone later."""
        done = [row for row in self.written if (number(row.get("time")) or math.inf) <= time]
        return number(done[-1].get("step")) if done else None


def read_run(run_dir: Path) -> RunRecord:
    """The record of the run in `run_dir`."""
    config = _read_toml(run_dir / "config.toml")
    dataset_path = str(config.get("data", {}).get("path") or "")
    return RunRecord(
        path=run_dir,
        status=read_json(run_dir / "status.json"),
        config=config,
        recipe=read_json(run_dir / "recipe.json"),
        plan=read_json(run_dir / "plan.json"),
        rows=surviving_rows(run_dir),
        written=[row for row in read_lines(run_dir / "metrics.jsonl") if row.get("kind") == "train"],
        events=read_events(run_dir),
        samples=list(read_lines(run_dir / "samples.jsonl")),
        heartbeats=_read_all(sorted((run_dir / "heartbeats").glob("rank-*.json"))),
        evals=sorted(
            _read_all(sorted((run_dir / "evals").glob("*.json"))),
            key=lambda row: number(row.get("step")) or 0,
        ),
        dataset_path=dataset_path,
        manifest=read_json(Path(dataset_path) / "manifest.json") if dataset_path else {},
    )


def number(value: Any) -> float | None:
    """`value` if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def _read_all(paths: Sequence[Path]) -> list[Row]:
    return [row for row in map(read_json, paths) if row]


def _read_toml(path: Path) -> dict[str, Row]:
    try:
        value = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: section for name, section in value.items() if isinstance(section, dict)}
