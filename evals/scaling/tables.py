"""Runs to fit a law to, from a CSV: parameters N, tokens D (or compute C), and the loss that they ended with.

Columns are found by the names that are usual, or named by the reader. A row that is no run is listed, never
dropped in silence.
"""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from evals.scaling.laws import Points
from evals.scaling.optimum import FLOPS_PER_PARAMETER_AND_TOKEN
from seedbed.errors import DataError, UsageError, nearest

USUAL = {
    "N": ("n", "params", "parameters", "num_params", "num_parameters", "model size", "model_size", "size"),
    "D": ("d", "tokens", "num_tokens", "training tokens", "train_tokens", "data"),
    "C": ("c", "flop", "flops", "compute", "training flop", "training flops", "train_flops"),
    "loss": ("loss", "l", "val_loss", "final_loss", "eval_loss", "test_loss"),
}
"""What is looked for, in lower case."""


@dataclass(frozen=True)
class Table:
    """The runs of a file."""

    points: Points
    lines: tuple[int, ...]
    """Of the file, of each point."""
    columns: dict[str, str]
    """N, D or C, and loss -> the column that was read."""
    left_out: list[str] = field(default_factory=list)
    """Lines that are no points, and why."""

    def take(self, chosen: list[int], why: dict[int, str]) -> "Table":
        """Those points alone; the others are left out for the reasons given."""
        told = [f"line {self.lines[number]}: {reason}" for number, reason in sorted(why.items())]
        lines = tuple(self.lines[number] for number in chosen)
        return Table(self.points.take(chosen), lines, self.columns, [*self.left_out, *told])


def read_points(path: Path, named: Mapping[str, str] | None = None) -> Table:
    """The runs of a CSV with a header.

    `named` says which column is which, {"N": "size"}; others are found by their usual names. Raises
    UsageError when there is none, DataError for a file that is no table, or numbers that are not positive.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no CSV: {error}", "give one with a header, such as N,D,loss") from None
    if not rows:
        raise DataError(f"{path} has no rows", "give a CSV with a header and a row for each run")
    columns = _columns(list(rows[0]), dict(named or {}), path)
    quantities, losses, lines, left_out = [], [], [], []
    for line, row in enumerate(rows, start=2):
        try:
            values = {name: float(row[column] or "nan") for name, column in columns.items()}
        except ValueError as error:
            left_out.append(f"line {line}: {error}")
            continue
        if bad := [name for name, value in values.items() if not math.isfinite(value)]:
            left_out.append(f"line {line}: {', '.join(columns[name] for name in bad)} is no number")
            continue
        if bad := [name for name, value in values.items() if value <= 0]:
            raise DataError(
                f"{path}, line {line}: {columns[bad[0]]} is {values[bad[0]]:g}, not above 0",
                "give parameters, tokens and losses as they are, not as logarithms or differences",
            )
        tokens = values.get("D") or values["C"] / values["N"] / FLOPS_PER_PARAMETER_AND_TOKEN
        quantities.append((values["N"], tokens))
        losses.append(values["loss"])
        lines.append(line)
    points = Points(np.array(quantities, dtype=np.float64).reshape(-1, 2), np.array(losses, dtype=np.float64))
    return Table(points, tuple(lines), columns, left_out)


def without_highest(table: Table, count: int) -> Table:
    """Without the `count` highest losses: runs that were cut short, or are far from any optimum."""
    order = np.argsort(table.points.losses, kind="stable")
    dropped = {int(number): "among the highest losses" for number in order[len(order) - count :]}
    return table.take([number for number in range(len(order)) if number not in dropped], dropped)


def _columns(header: list[str], named: dict[str, str], path: Path) -> dict[str, str]:
    if unknown := sorted(named.keys() - USUAL.keys()):
        raise UsageError(f"--column {unknown[0]}=... names no quantity", "N, D, C or loss")
    for name, column in named.items():
        if column not in header:
            guess = nearest(column, header)
            raise UsageError(
                f"{path} has no column {column!r}",
                f"did you mean {name}={guess}?" if guess else f"it has {', '.join(header)}",
            )
    by_name = {column.strip().lower(): column for column in header if column}
    for name, usual in USUAL.items():
        found = next((by_name[one] for one in usual if one in by_name), None)
        if name not in named and found is not None:
            named[name] = found
    wanted = [name for name in ("N", "loss") if name not in named]
    wanted += ["D (or C)"] if not {"D", "C"} & named.keys() else []
    if wanted:
        raise UsageError(
            f"{path} has no column for {', '.join(wanted)} among {', '.join(header)}",
            "name it: --column N=size --column D=tokens --column loss=final",
        )
    return {name: named[name] for name in ("N", "D" if "D" in named else "C", "loss")}
