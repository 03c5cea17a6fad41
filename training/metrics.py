"""Reading a run's records: the surviving chain of metrics, events, goodput."""

import itertools
from pathlib import Path
from typing import Any

from seedbed.files import read_lines


def read_events(run_dir: Path) -> list[dict[str, Any]]:
    """All events, in the order in which they were written."""
    return list(read_lines(run_dir / "events.jsonl"))


def num_restarts(events: list[dict[str, Any]]) -> int:
    """How often workers, or the supervisor itself, were started again."""
    return sum(event.get("kind") in ("restarted", "supervisor_died") for event in events)


def surviving_rows(run_dir: Path) -> list[dict[str, Any]]:
    """Rows of `metrics.jsonl` whose steps are part of the final weights.

    A later attempt that began from step s undoes what earlier attempts did after s; going back to the best
    step undoes what all attempts until then did after it.
    """
    limits = _limits(read_events(run_dir))
    return [
        row
        for row in read_lines(run_dir / "metrics.jsonl")
        if {"kind", "step"} <= row.keys() and _survives(int(row.get("attempt", 0)), int(row["step"]), limits)
    ]


def step_survives(run_dir: Path, attempt: int, step: int) -> bool:
    """Whether what `attempt` did until `step` is part of the chain that the run goes on from."""
    return _survives(attempt, step, _limits(read_events(run_dir)))


def _survives(attempt: int, step: int, limits: list[tuple[int, int]]) -> bool:
    return all(attempt >= first or step <= last for first, last in limits)


def _limits(events: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """(attempt, step): attempts before that one count up to that step, where no other says less."""
    limits, attempt = [], 0
    for event in events:
        if event.get("kind") == "attempt_started" and {"attempt", "from_step"} <= event.keys():
            attempt = int(event["attempt"])
            limits.append((attempt, int(event["from_step"])))
        elif event.get("kind") == "best_restored" and "step" in event:
            limits.append((attempt + 1, int(event["step"])))
    return limits


def working_seconds(run_dir: Path, now: float) -> float:
    """Wall time during which the run was submitted: from each start to its last sign of life.

    The time between a stop and a later resume by the user is not the run's.
    """
    events = read_events(run_dir)
    events = [event for event in events if isinstance(event.get("time"), int | float)]
    sessions = [event["time"] for event in events if event.get("kind") == "session_started"]
    signs = sorted(
        [event["time"] for event in events]
        + [row["time"] for row in read_lines(run_dir / "metrics.jsonl") if "time" in row]
    )
    total = 0.0
    for start, following in itertools.pairwise(sessions):
        total += max((sign for sign in signs if start <= sign < following), default=start) - start
    return total + (now - sessions[-1] if sessions else 0.0)


def productive_seconds(rows: list[dict[str, Any]]) -> float:
    """Time spent in steps that survive and were learnt from."""
    learnt = (row for row in rows if row.get("kind") == "train" and not row.get("skipped"))
    return sum(float(row.get("step_s") or 0.0) for row in learnt)


def time_shares(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Shares of the time that steps, saves and validations took: what of it nothing was learnt in.

    Waiting for data lies within a step, the others between steps. Empty before the first step. What ranks
    spend on exchanging gradients is not among them: it overlaps with the backward, and only a profile tells
    (`training.profile`).
    """
    sums = {"step_s": 0.0, "data_s": 0.0, "blocked_s": 0.0, "eval_s": 0.0}
    for row in rows:
        for name in sums:
            sums[name] += float(row.get(name) or 0.0)
    if not sums["step_s"]:
        return {}
    whole = sums["step_s"] + sums["blocked_s"] + sums["eval_s"]
    return {
        "waiting_for_data": sums["data_s"] / whole,
        "saving": sums["blocked_s"] / whole,
        "validating": sums["eval_s"] / whole,
    }


def scores_of(row: dict[str, Any]) -> dict[str, float]:
    """What a validation row holds beside the loss, by name: bits per byte, accuracy, parts of the loss."""
    return {
        name.removeprefix("val_"): value
        for name, value in row.items()
        if name.startswith("val_") and name != "val_loss" and value is not None
    }


def scores_text(scores: dict[str, float]) -> str:
    """`0.8712 accuracy, 1.5000 bits per byte`."""
    return ", ".join(f"{value:.4f} {name.replace('_', ' ')}" for name, value in scores.items())
