"""Runs to fit a law to, from a CSV: parameters N, tokens D (or compute C), and the loss that they ended with.

Columns are found by the names that are usual, or named by the reader. A row that is no run is listed, never
dropped in silence.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from evals.scaling.laws import Array, Points
from evals.scaling.optimum import FLOPS_PER_PARAMETER_AND_TOKEN
from seedbed.errors import DataError, UsageError, did_you_mean, nearest

USUAL = {
    "N": ("n", "params", "parameters", "num_params", "num_parameters", "model size", "model_size", "size"),
    "D": ("d", "tokens", "num_tokens", "training tokens", "train_tokens", "data"),
    "C": ("c", "flop", "flops", "compute", "training flop", "training flops", "train_flops"),
    "loss": ("loss", "l", "val_loss", "final_loss", "eval_loss", "test_loss"),
    "U": ("u", "unique", "unique_tokens", "num_unique_tokens"),
}
"""What is looked for, in lower case. U, the tokens that differ, need not be there."""
GAP = 1e3
"""From one value to the next, from which a column may be in several units."""
NEAR = 30.0
"""How far from the others a value may be once it is in their unit."""


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
    counts: dict[str, Array] = field(default_factory=dict)
    """Other ways to count each point's parameters, by column."""
    unique: Array | None = None
    """[n] tokens that differ, where a column says so: the others are repetitions."""

    def take(self, chosen: list[int], why: dict[int, str]) -> "Table":
        """Those points alone; the others are left out for the reasons given."""
        told = [f"line {self.lines[number]}: {reason}" for number, reason in sorted(why.items())]
        lines = tuple(self.lines[number] for number in chosen)
        counts = {name: values[chosen] for name, values in self.counts.items()}
        unique = None if self.unique is None else self.unique[chosen]
        return Table(self.points.take(chosen), lines, self.columns, [*self.left_out, *told], counts, unique)


def read_points(path: Path, named: Mapping[str, str] | None = None, counts: Sequence[str] = ()) -> Table:
    """The runs of a CSV with a header.

    `named` says which column is which, {"N": "size"}; others are found by their usual names. `counts` are
    columns that count parameters otherwise. Raises UsageError when a column is missing, DataError for a file
    that is no table, numbers that are not positive, or a column in several units.
    """
    rows = _rows(path)
    header = list(rows[0])
    columns = _columns(header, dict(named or {}), path)
    for count in counts:
        if count not in header:
            raise UsageError(f"{path} has no column {count!r}", f"it has {', '.join(header)}")
    read = columns | {count: count for count in counts}
    found: list[dict[str, float]] = []
    lines, left_out = [], []
    for line, row in enumerate(rows, start=2):
        try:
            values = {name: float(row[column] or "nan") for name, column in read.items()}
        except ValueError as error:
            left_out.append(f"line {line}: {error}")
            continue
        if bad := [name for name, value in values.items() if not math.isfinite(value)]:
            left_out.append(f"line {line}: {', '.join(read[name] for name in bad)} is no number")
            continue
        if bad := [name for name, value in values.items() if value <= 0]:
            raise DataError(
                f"{path}, line {line}: {read[bad[0]]} is {values[bad[0]]:g}, not above 0",
                "give parameters, tokens and losses as they are, not as logarithms or differences",
            )
        found.append(values)
        lines.append(line)
    for name, column in read.items():
        if name != "loss":
            _one_unit(f"{path}, {column}", [values[name] for values in found], lines)
    quantities = [(values["N"], _tokens(values)) for values in found]
    points = Points(
        np.array(quantities, dtype=np.float64).reshape(-1, 2),
        np.array([values["loss"] for values in found], dtype=np.float64),
    )
    others = {count: np.array([values[count] for values in found]) for count in counts}
    unique = np.array([values["U"] for values in found]) if "U" in columns else None
    return Table(points, tuple(lines), columns, left_out, others, unique)


def read_columns(
    path: Path, names: Sequence[str], named: Mapping[str, str]
) -> tuple[dict[str, Array], dict[str, str], list[str]]:
    """(column of numbers, what it is called in the file) by the names of quantities, and the lines left out.

    A quantity's column is called as it is, in any case, unless `named` says otherwise. Raises UsageError for
    one that is not there.
    """
    rows = _rows(path)
    by_name = {column.strip().lower(): column for column in rows[0] if column}
    if unknown := sorted(named.keys() - {*names}):
        raise UsageError(f"--column {unknown[0]}=... names no quantity of this law", ", ".join(names))
    columns = {name: named.get(name) or by_name.get(name.lower(), "") for name in names}
    for name, column in columns.items():
        if not column or column not in rows[0]:
            raise UsageError(
                f"{path} has no column {column or name!r}",
                f"it has {', '.join(filter(None, rows[0]))}; name the one of {name}: --column {name}=COLUMN",
            )
    kept, left_out = [], []
    for line, row in enumerate(rows, start=2):
        values = {name: _number(row[column]) for name, column in columns.items()}
        if bad := [columns[name] for name, value in values.items() if value is None]:
            left_out.append(f"line {line}: {', '.join(bad)} is no number")
        else:
            kept.append(values)
    found = {name: np.array([values[name] for values in kept], dtype=np.float64) for name in names}
    return found, columns, left_out


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _rows(path: Path) -> list[dict[str, str | None]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no CSV: {error}", "give one with a header, such as N,D,loss") from None
    if not rows:
        raise DataError(f"{path} has no rows", "give a CSV with a header and a row for each run")
    return rows


def _tokens(values: Mapping[str, float]) -> float:
    return values.get("D") or values["C"] / values["N"] / FLOPS_PER_PARAMETER_AND_TOKEN


def _one_unit(what: str, values: Sequence[float], lines: Sequence[int]) -> None:
    """Raises DataError when some numbers seem to be in millions or billions, and others not.

    So it seems when nothing lies between the smaller and the larger over `GAP`, and one factor of a thousand,
    a million ... puts each of the smaller among the larger.
    """
    order = sorted(range(len(values)), key=lambda i: values[i])
    for place in range(1, len(order)):
        small, large = [values[i] for i in order[:place]], [values[i] for i in order[place:]]
        if large[0] / small[-1] < GAP:
            continue
        for power in (3, 6, 9, 12):
            if large[0] / NEAR <= small[0] * 10**power and small[-1] * 10**power <= large[-1] * NEAR:
                some = ", ".join(str(lines[i]) for i in sorted(order[:place])[:5])
                raise DataError(
                    f"{what} is in several units: {small[0]:g} to {small[-1]:g} in {place} rows (lines {some}"
                    f"{' ...' if place > 5 else ''}), {large[0]:g} to {large[-1]:g} in the others",
                    f"the former may be in units of 1e{power}: give all in one unit",
                )


def without_highest(table: Table, count: int) -> Table:
    """Without the `count` highest losses: runs that were cut short, or are far from any optimum."""
    order = np.argsort(table.points.losses, kind="stable")
    dropped = {int(number): "among the highest losses" for number in order[len(order) - count :]}
    return table.take([number for number in range(len(order)) if number not in dropped], dropped)


def _columns(header: list[str], named: dict[str, str], path: Path) -> dict[str, str]:
    if unknown := sorted(named.keys() - USUAL.keys()):
        raise UsageError(f"--column {unknown[0]}=... names no quantity", "N, D, C, loss or U")
    for name, column in named.items():
        if column not in header:
            raise UsageError(
                f"{path} has no column {column!r}",
                did_you_mean(column, header, f"it has {', '.join(header)}", f"{name}={{}}"),
            )
    by_name = {column.strip().lower(): column for column in header if column}
    for name, usual in USUAL.items():
        found = next((by_name[one] for one in usual if one in by_name), None)
        if name not in named and found is not None:
            named[name] = found
    wanted = [name for name in ("N", "loss") if name not in named]
    wanted += ["D (or C)"] if not {"D", "C"} & named.keys() else []
    if wanted:
        offered = [
            f"--column {name}={_likely(name, header, named)}" for name in (text.split()[0] for text in wanted)
        ]
        raise UsageError(
            f"{path} has no column for {', '.join(wanted)} among {', '.join(header)}",
            f"name it: {' '.join(offered)}",
        )
    read = ("N", "D" if "D" in named else "C", "loss", *(["U"] if "U" in named else []))
    return {name: named[name] for name in read}


def _likely(name: str, header: Sequence[str], named: Mapping[str, str]) -> str:
    """The column that may be quantity `name`: one of which a usual name is a part, or that is spelt alike."""
    free = [column for column in header if column and column not in named.values()]
    words = [word for word in USUAL[name] if len(word) > 2]
    parts = (column for column in free if any(word in column.lower() for word in words))
    alike = (column for word in words if (column := nearest(word, free)))
    return next(parts, None) or next(alike, None) or "COLUMN"
