"""A live view of runs in a terminal, from what they write of themselves."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.output import emit_line
from cluster.run_access import RUNS, Access, SeenRun, find_run, status_of
from cluster.watch import duration, losses
from seedbed.errors import UsageError
from training.run_directory import TERMINAL_STATES

if TYPE_CHECKING:
    from rich.table import Table

BARS = " ▁▂▃▄▅▆▇█"
SPARKS = 24


def watch_runs(names: list[str], address: str | None, *, every_s: float, once: bool, json: bool) -> None:
    """Show `names`, or all of ./runs, until Ctrl-C, or until all of them are over."""
    if every_s <= 0:
        raise UsageError(f"--every {every_s:g} is no time between looks", "such as --every 2")

    def look() -> list[dict[str, Any]]:
        found: list[Access] = [find_run(name, address) for name in names]
        if not names:
            found = [SeenRun(path.parent) for path in sorted(RUNS.glob("*/config.toml"))]
        return [_looked_at(access) for access in found]

    if json:
        return _stream(look, every_s, once)
    from rich.console import Console
    from rich.live import Live

    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    if once:
        return console.print(_table(look()))
    try:
        with Live(
            _table(rows := look()), console=console, screen=console.is_terminal, auto_refresh=False
        ) as live:
            while not (names and all(row["state"] in TERMINAL_STATES for row in rows)):
                time.sleep(every_s)
                live.update(_table(rows := look()), refresh=True)
    except KeyboardInterrupt:
        pass
    return console.print(_table(rows)) if console.is_terminal else None


def _stream(look: Callable[[], list[dict[str, Any]]], every_s: float, once: bool) -> None:
    while True:
        emit_line({"time": time.time(), "runs": look()}, json=True, render=str)
        if once:
            return
        time.sleep(every_s)


def _looked_at(access: Access) -> dict[str, Any]:
    """A damaged run is a line of its own, not the end of the view."""
    try:
        value = status_of(access)
    except (UsageError, ValueError, KeyError) as error:
        return {
            "name": Path(access.path).name,
            "state": "unreadable",
            "message": str(error),
            "run": access.path,
        }
    recent = losses(Path(access.path), 20 * SPARKS) if isinstance(access, SeenRun) else []
    return {**value, "curve": sparkline(recent)}


def _table(rows: list[dict[str, Any]]) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in (
        "run",
        "state",
        "step",
        "",
        "loss",
        "curve",
        "tok/s",
        "MFU",
        "left",
        "saved",
        "restarts",
        "goodput",
    ):
        table.add_column(column, justify="left" if column in ("run", "state", "", "curve") else "right")
    for row in rows:
        state = row["state"] + (
            f": {row['message']}" if row.get("message") and row["state"] != "running" else ""
        )
        if "steps" not in row:
            table.add_row(row["name"], state)
            continue
        saved = row["checkpoint"]
        table.add_row(
            row["name"],
            state[:60],
            f"{row['step']:,}/{row['steps']:,}",
            _bar(row["step"] / row["steps"]),
            _shown(row["loss"], "{:.4f}"),
            row.get("curve", ""),
            _shown(row["tokens_per_s"], "{:,.0f}"),
            _shown(row["mfu"], "{:.0%}"),
            duration(row["left_s"]) if row["left_s"] is not None else "",
            f"{saved['step']} ({duration(saved['age_s'])})" if saved else "none",
            str(row["restarts"]),
            _shown(row["goodput"], "{:.0%}"),
        )
    return table


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _bar(share: float, width: int = 12) -> str:
    full = min(width, int(share * width))
    return "█" * full + "░" * (width - full)


def sparkline(values: list[float], width: int = SPARKS) -> str:
    """A curve of at most `width` characters, each the mean of as many values."""
    if not values:
        return ""
    size = max(1, len(values) // width)
    means = [sum(values[i : i + size]) / len(values[i : i + size]) for i in range(0, len(values), size)][
        -width:
    ]
    low, high = min(means), max(means)
    span = (high - low) or 1.0
    return "".join(BARS[1 + int((value - low) / span * (len(BARS) - 2))] for value in means)
