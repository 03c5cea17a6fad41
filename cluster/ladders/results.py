"""What came of a ladder's cells: rows for a table, and the CSV that `seedbed scale fit` reads."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.ladders.stages import cell_name, leg_name
from cluster.pipelines.driver import Progress
from cluster.sweeps.results import QUANTITIES, loss_at
from models.families import count_parameters
from seedbed.errors import EXIT_TRAINING
from seedbed.files import write_atomic
from training.metrics import surviving_rows
from training.run_directory import RunDirectory, read_json

TABLE = "table.csv"
FITTED = "fitted.csv"
"""The cells that the law is fitted to: all but those held out."""
COLUMNS = (
    "cell", *QUANTITIES, "U", "N_non_embedding", "held_out", "state", "steps", "device_hours", "message",
    "run",
)  # fmt: skip


def row_of(
    trunk: Mapping[str, Any], cell: Mapping[str, Any], stages: Mapping[str, Progress], *, is_held_out: bool
) -> dict[str, Any]:
    """One row for the columns of the table; the loss is that of the validation at the cell's end.

    state: waiting, running, done, failed, stopped; diverged for a cell, or a trunk of it, whose guards gave
    up, or whose loss is that of a model that knows nothing.
    """
    name = cell_name(trunk, cell)
    progress = stages[name]
    row: dict[str, Any] = {
        "cell": name, "N": cell["parameters"], "D": cell["tokens"], "C": cell["flops"], "loss": None,
        "held_out": is_held_out, "state": progress.state, "message": progress.message,
        "has_begun": _has_begun(cell, progress),
    }  # fmt: skip
    if blocked := _blocked(trunk, cell, stages):
        return row | blocked
    if progress.state == "failed" and progress.record.get("code") == EXIT_TRAINING:
        row["state"] = "diverged"
    if progress.work is None:
        return row
    run = progress.work.place.out
    row["run"] = str(run)
    if progress.work.config:
        row["N_non_embedding"] = count_parameters(progress.work.config.model).non_embedding
    if progress.state != "done":
        return row
    loss, limit = loss_at(run, cell["steps"]), trunk["settings"]["guards.max_loss"]
    row |= {"loss": loss, "steps": cell["steps"], "device_hours": progress.record.get("device_hours")}
    if loss is None or loss > limit:
        shown = "no number" if loss is None else f"{loss:.4g}"
        row |= {"state": "diverged", "loss": None, "message": f"its loss is {shown}, and {limit:g} the limit"}
    epochs = read_json(RunDirectory(run).plan_path).get("data", {}).get("epochs")
    if isinstance(epochs, float) and epochs > 0:
        row["U"] = round(cell["tokens"] / epochs)
    return row


def _has_begun(cell: Mapping[str, Any], progress: Progress) -> bool:
    """Whether anything was trained of it beyond its trunk."""
    if progress.state != "waiting":
        return True
    return progress.work is not None and any(
        row["step"] > cell["branch_at"] for row in surviving_rows(progress.work.place.out)
    )


def _blocked(
    trunk: Mapping[str, Any], cell: Mapping[str, Any], stages: Mapping[str, Progress]
) -> dict[str, Any]:
    """What a cell is whose trunk came to an end before it."""
    for leg in trunk["legs"]:
        progress = stages[leg_name(trunk, leg["to_step"])]
        if leg["to_step"] <= cell["branch_at"] and progress.state == "failed":
            gave_up = progress.record.get("code") == EXIT_TRAINING
            why = f"its trunk ended before step {leg['to_step']}: {progress.message}"
            return {"state": "diverged" if gave_up else "failed", "message": why}
    return {}


def loss_of(row: Mapping[str, Any]) -> float | None:
    """Of a cell that is a result."""
    return row["loss"] if row["state"] == "done" else None


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace the table at `path`; the loss of what is no result is left out, and its state says why."""
    # Tokens that differ are known of all runs or, as of a mixture of sources, of none.
    is_known = all("U" in row for row in rows if loss_of(row) is not None)
    out = io.StringIO()
    writer = csv.DictWriter(
        out, [name for name in COLUMNS if name != "U" or is_known], extrasaction="ignore", lineterminator="\n"
    )
    writer.writeheader()
    for row in rows:
        writer.writerow({**row, "loss": loss_of(row)})
    write_atomic(path, out.getvalue())
