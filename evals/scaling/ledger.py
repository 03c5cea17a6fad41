"""Forecasts, registered before the runs that they are of: a file that is only ever added to.

Each line holds the digest of the line before it and of itself, so that no line can be changed, taken out or
put in between without all later ones being made anew, and times can only go forward. Who rewrites the whole
file, or its end, is found out by a digest that was written down elsewhere: the last one is printed with every
registration, for a commit message or a mail.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from seedbed.errors import DataError, UsageError
from seedbed.files import digest_of, write_atomic
from seedbed.statistics import share_interval

FIRST = "0" * 64
"""What stands for the digest before the first line."""
Row = dict[str, Any]


def register(path: Path, forecast: Row, *, name: str = "", now: datetime | None = None) -> Row:
    """Add a forecast, and return its line. Errors: see `read`."""
    return _append(path, {"kind": "forecast", "name": name, "forecast": forecast}, now)


def score(path: Path, number: int, loss: float, *, note: str = "", now: datetime | None = None) -> Row:
    """Add what came of forecast `number`, and return its line.

    Raises UsageError for a forecast that does not exist, or is scored already, or a loss that is none.
    """
    rows = read(path)
    known = {row["number"]: row for row in rows if row["kind"] == "forecast"}
    if number not in known:
        some = ", ".join(str(one) for one in known) or "none"
        raise UsageError(f"{path} has no forecast {number}", f"it has {some}")
    if any(row["kind"] == "score" and row["of"] == number for row in rows):
        raise UsageError(f"forecast {number} is scored already", "a second score would be a choice of runs")
    if not 0 < loss < float("inf"):
        raise UsageError(
            f"--loss {loss:g} is no loss", "give it in nats per token, as the law's points have it"
        )
    return _append(path, {"kind": "score", "of": number, "loss": loss, "note": note}, now)


def read(path: Path, expected: str | None = None) -> list[Row]:
    """All lines, each proved to follow from the one before it; none where there is no file.

    Raises DataError for one that does not, and when digest `expected` is not among them.
    """
    rows: list[Row] = []
    # Other separators than this one may stand in a name.
    lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n") if path.exists() else []
    for number, line in enumerate(lines, start=1):
        previous = rows[-1] if rows else {"digest": FIRST, "time": ""}
        row = _parsed(line)
        fault = _fault(row, number, previous)
        if row is None or fault:
            raise DataError(
                f"{path}, line {number}: {fault}",
                "forecasts and scores from here on prove nothing: take the file from where it was kept",
            )
        rows.append(row)
    if expected and expected not in {row["digest"] for row in rows}:
        raise DataError(
            f"{path} has no line of digest {expected}: it was rewritten or cut short after that was printed",
            "take the file from where it was kept",
        )
    return rows


def table(rows: list[Row]) -> dict[str, Any]:
    """Every forecast with its outcome, and how often the interval of a run held it."""
    scores = {row["of"]: row for row in rows if row["kind"] == "score"}
    listed = [_outcome(row, scores.get(row["number"])) for row in rows if row["kind"] == "forecast"]
    told = [one["is_covered"] for one in listed if one["is_covered"] is not None]
    coverage = share_interval(sum(told), len(told)) if told else None
    return {
        "forecasts": listed,
        "scored": len(told),
        "covered": sum(told),
        "coverage": coverage and coverage.value,
        "coverage_interval": coverage and [coverage.low, coverage.high],
        "nominal": 0.95,
        "head": rows[-1]["digest"] if rows else FIRST,
    }


def _outcome(row: Row, scored: Row | None) -> Row:
    forecast = row["forecast"]
    low, high = forecast.get("run_interval") or (None, None)
    loss = scored["loss"] if scored else None
    is_covered = None
    if loss is not None and low is not None and high is not None:
        is_covered = low <= loss <= high
    return {
        "number": row["number"],
        "name": row["name"],
        "registered": row["time"],
        "scored": scored["time"] if scored else None,
        "parameters": forecast["parameters"],
        "tokens": forecast["tokens"],
        "predicted": forecast["loss"],
        "interval": [low, high],
        "loss": loss,
        "relative_error": None if loss is None else forecast["loss"] / loss - 1,
        "is_covered": is_covered,
    }


def _append(path: Path, body: Row, now: datetime | None) -> Row:
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path.parent):
        rows = read(path)
        moment = (now or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if rows and moment < rows[-1]["time"]:
            raise DataError(
                f"the clock says {moment}, before the last line of {path}, of {rows[-1]['time']}",
                "set the clock right: a forecast cannot be dated back",
            )
        row = {
            "number": len(rows) + 1,
            "time": moment,
            **body,
            "previous": rows[-1]["digest"] if rows else FIRST,
        }
        row["digest"] = digest_of(row)
        before = path.read_bytes() if path.exists() else b""
        write_atomic(path, before + json.dumps(row, ensure_ascii=False).encode() + b"\n")
    return row


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time: a line that two follow would break the chain."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _parsed(line: str) -> Row | None:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) else None


def _fault(row: Row | None, number: int, previous: Row) -> str:
    """What is wrong with a line; empty for nothing."""
    if row is None:
        return "no JSON object"
    if digest_of({name: value for name, value in row.items() if name != "digest"}) != row.get("digest"):
        return "its digest is another: it was changed after it was written"
    if row.get("previous") != previous["digest"] or row.get("number") != number:
        return "it does not follow from the line before: lines were taken out, or put in"
    if row["time"] < previous["time"]:
        return "it is earlier than the line before"
    return ""
