"""What came of a sweep's points: rows for a table, and the CSV that `seedbed scale fit` reads."""

import csv
import io
import math
from pathlib import Path
from statistics import fmean
from typing import Any

from cluster.pipelines.driver import Progress
from seedbed.errors import EXIT_TRAINING
from seedbed.files import write_atomic
from training.metrics import surviving_rows

LAST_SHARE = 0.1
"""Of its steps, whose mean loss stands for a run that is not validated."""
QUANTITIES = ("N", "D", "C", "loss")


def loss_at(run: Path, step: int) -> float | None:
    """Of the last validation up to a step, or else the mean of its last training losses; None before both."""
    rows = [row for row in surviving_rows(run) if int(row["step"]) <= step]
    validated = [row["val_loss"] for row in rows if row.get("kind") == "eval" and "val_loss" in row]
    if validated:
        return _number(validated[-1])
    losses = [row for row in rows if row.get("kind") == "train" and row.get("loss") is not None]
    last = [row["loss"] for row in losses if row["step"] > step * (1 - LAST_SHARE)]
    return _number(fmean(last)) if last else None


def row_of(name: str, own: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """{point, its settings, state, steps, N, D, C, loss, device_hours, message, run}."""
    row: dict[str, Any] = {"point": name, **own, "state": progress.state, "message": progress.message}
    if progress.work is None:
        return row
    run = progress.work.place.out
    rows = [row for row in surviving_rows(run) if row.get("kind") == "train"]
    result = progress.record.get("result", {})
    row |= {"run": str(run), "steps": int(rows[-1]["step"]) if rows else 0, "loss": None}
    config = progress.work.config
    if rows and config is not None:
        row["loss"] = loss_at(run, row["steps"])
        row["D"] = int(rows[-1].get("tokens", 0))
        plan = _plan(run)
        row["N"] = (result.get("parameters") or plan.get("parameters", {})).get("total")
        row["C"] = plan.get("total_flops", 0.0) * row["steps"] / config.run.steps or None
        row["device_hours"] = progress.record.get("device_hours")
    row |= _verdict(progress, rows, row["loss"])
    return row


def _verdict(progress: Progress, rows: list[dict[str, Any]], loss: float | None) -> dict[str, Any]:
    """A run that knows less than it began with has diverged, as has one that guards gave up."""
    if progress.state == "failed":
        gave_up = progress.record.get("code") == EXIT_TRAINING
        return {"state": "diverged" if gave_up else "failed"}
    if progress.state not in ("done", "paused") or not rows:
        return {}
    first = _number(rows[0].get("loss"))
    if loss is None or (first is not None and loss > first):
        shown = "no number" if loss is None else f"{loss:.4g}"
        return {"state": "diverged", "message": f"its loss is {shown}, and was {first} at first"}
    return {}


def csv_text(rows: list[dict[str, Any]], settings: list[str]) -> str:
    """A row for each point; the loss of one that is no result is left out, and its state says why."""
    columns = ["point", *QUANTITIES, "state", "steps", "device_hours", *settings, "message", "run"]
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({**row, "loss": row.get("loss") if row["state"] == "done" else None})
    return out.getvalue()


def write_csv(path: Path, rows: list[dict[str, Any]], settings: list[str]) -> None:
    """Replace the table at `path`."""
    write_atomic(path, csv_text(rows, settings))


def _plan(run: Path) -> dict[str, Any]:
    from training.run_directory import RunDirectory, read_json

    return read_json(RunDirectory(run).plan_path)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
