"""Whether the newest checkpoint is better than the one before it, task by task, on the same items."""

import math
from pathlib import Path

from evals.comparison import Comparison, compare_tasks
from evals.metrics.registry import METRICS
from evals.report.record import Row
from evals.report.tables import NONE, card, table
from evals.task_results import ItemScores, read_scores
from seedbed.errors import DataError, SeedbedError


def verdicts_card(histories: list[list[Row]], folder: Path) -> str:
    """A table with a row for each task that has two checkpoints whose item scores lie in `folder`; empty
    without."""
    tasks, steps = {}, {}
    for history in histories:
        pair = [_scores(row, folder) for row in history[-2:]]
        name = history[-1].get("metric")
        if len(pair) == 2 and pair[0] and pair[1] and name in METRICS:
            task = str(history[-1].get("task"))
            tasks[task] = (pair[0], pair[1], str(name))
            steps[task] = f"{history[-2]['step']:,} to {history[-1]['step']:,}"
    try:
        found = compare_tasks(tasks)
    except (SeedbedError, ArithmeticError, LookupError, TypeError, ValueError):
        # Scores of another version, or put together by hand: the report is of more than these.
        return ""
    if not found:
        return ""
    rows = [_row(task, steps[task], one) for task, one in found.items()]
    head = ["task", "metric", "steps", "verdict", "difference", "95 %", "p", "items needed"]
    several = " p-values are Holm's." if len(rows) > 1 else ""
    note = (
        "<p class=note>Item by item. Tied: these items do not tell; so many of their kind would show a "
        f"difference of this size eight times in ten.{several}</p>"
    )
    return card("Against the checkpoint before", table(head, rows, numbers=(4, 5, 6, 7)) + note)


def _scores(row: Row, folder: Path) -> ItemScores | None:
    name = str(row.get("scores") or "")
    # A result file must not lead elsewhere.
    if not name or Path(name).name != name:
        return None
    try:
        return read_scores(folder / name, str(row.get("items")))
    except DataError:
        return None


def _row(task: str, steps: str, one: Comparison) -> list[str]:
    between = one.difference
    ends = f"{between.low:+.3f} to {between.high:+.3f}" if math.isfinite(between.low) else NONE
    needed = f"{one.items_needed:,}" if one.verdict == "tied" and one.items_needed else NONE
    return [task, one.metric, steps, one.verdict, f"{between.value:+.4f}", ends, f"{one.p:.2g}", needed]
