"""What came of models of several sizes: how often their answers are preferred, how well their rewards judge.

Of the results of `seedbed contest --reference` and of `seedbed eval --tasks preferences`, whose runs say how
large a model is, what it was trained to do last, and on how many comparisons. As Stiennon et al. 2020
(arXiv:2009.01325, figures 1 and 6) show them.
"""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from data.examples.table import ExampleTable
from data.shards import Dataset
from evals.ratings import REFERENCE
from evals.report.charts import TALL, Chart, Series, Style, Tone, line_chart
from evals.report.page import document
from evals.report.tables import table
from models.families import count_parameters
from seedbed.errors import DataError
from seedbed.files import write_atomic
from seedbed.progress import human_count
from training.checkpoint.layout import resolve, run_of
from training.run_directory import RunDirectory
from training.tasks import objective_of

ROLES = {"causal_lm": "pretrained", "sft": "fine-tuned"}
"""By objective; what a reward taught is called by its algorithm."""
Row = dict[str, Any]
TONES: tuple[Tone, ...] = ("plain", "validation", "train")


def by_size(results: Sequence[Path]) -> dict[str, Any]:
    """{"preference": rows, "accuracy": rows}, from small models to large ones.

    A row of preference: {role, against, parameters, value, low, high, wins, ties, losses}, of a model against
    the reference or against one that was trained less far; of accuracy: {parameters, comparisons, run, value,
    low, high, pairs}. Raises DataError for a file that is the result of neither command.
    """
    preference: list[Row] = []
    accuracy: list[Row] = []
    for path in results:
        value = _read(path)
        try:
            if "win_rates" in value:
                preference += _preference(path, value)
            else:
                accuracy.append(_accuracy(path, value))
        except (KeyError, TypeError, AttributeError):
            raise DataError(f"{path} lacks what a contest or scores of a reward model hold", _FIX) from None
    return {
        "preference": sorted(
            preference, key=lambda row: (row["against"] != REFERENCE, row["parameters"], _order(row["role"]))
        ),
        "accuracy": sorted(accuracy, key=lambda row: (row["parameters"], row["comparisons"])),
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no JSON: {error}", _FIX) from None
    known = isinstance(value, dict) and ("win_rates" in value or "preferences" in (value.get("tasks") or {}))
    if not known:
        raise DataError(f"{path} holds neither a contest nor scores of a reward model", _FIX)
    return dict(value)


_FIX = "give what `contest --reference --json` or `eval REWARD_MODEL --tasks preferences --json` printed"


def _preference(path: Path, value: dict[str, Any]) -> list[Row]:
    met = [pair for pair in value["win_rates"] if "rate" in pair]
    if not any(pair["second"] == REFERENCE for pair in met):
        raise DataError(f"{path}: no one met the reference", "add --reference to the contest, or ask more")
    found = []
    for pair in met:
        (role, size), (other, _) = (_who(name) for name in (pair["first"], pair["second"]))
        row: Row = {name: pair["rate"][name] for name in ("value", "low", "high")}
        row |= {"wins": pair["wins"], "ties": pair["ties"], "losses": pair["losses"]}
        if _order(role) < _order(other) and other != REFERENCE:
            # Always of the one that was trained further.
            role, other = other, role
            row |= {"value": 1 - row["value"], "low": 1 - row["high"], "high": 1 - row["low"]}
            row |= {"wins": row["losses"], "losses": row["wins"]}
        found.append({"role": role, "against": other, "parameters": size, **row})
    return found


def _who(name: str) -> tuple[str, int]:
    """What a checkpoint was trained to do last, and how large it is."""
    if name == REFERENCE:
        return REFERENCE, 0
    config = _run(Path(name)).config()
    objective = objective_of(config)
    return ROLES.get(objective, objective), count_parameters(config.model).total


def _place(row: Row) -> tuple[bool, int, int]:
    """Against the reference first, from small to large."""
    return row["against"] != REFERENCE, row["parameters"], _order(row["role"])


def _order(role: str) -> int:
    """In which models are trained one from the other."""
    known = list(ROLES.values())
    return known.index(role) if role in known else len(known)


def _accuracy(path: Path, value: dict[str, Any]) -> dict[str, Any]:
    run, scores = Path(value["run"]), value["tasks"]["preferences"]
    config = _run(run).config()
    learnt = ExampleTable.of(Dataset.open(config.data.path), "train").num_examples
    row = {"parameters": count_parameters(config.model).total, "comparisons": learnt, "run": str(run)}
    return row | {name: scores[name] for name in ("value", "low", "high", "pairs")}


def _run(path: Path) -> RunDirectory:
    return RunDirectory.existing(run_of(resolve(path)))


def write_page(value: dict[str, Any], out: Path) -> None:
    """Both as charts with their intervals, and as tables."""
    rows, judged = value["preference"], value["accuracy"]
    preferred: dict[str, list[tuple[float, Row]]] = {}
    further: dict[str, list[tuple[float, Row]]] = {}
    for row in rows:
        of_reference = row["against"] == REFERENCE
        label = row["role"] if of_reference else f"{row['role']} to {row['against']}"
        (preferred if of_reference else further).setdefault(label, []).append((row["parameters"], row))
    most: dict[int, Row] = {}
    for row in judged:
        most[row["parameters"]] = max(
            most.get(row["parameters"], row), row, key=lambda one: one["comparisons"]
        )
    by_count = {
        human_count(size): [(row["comparisons"], row) for row in judged if row["parameters"] == size]
        for size in most
    }
    right = "share of held-out comparisons; 95 % intervals"
    charts = [
        _chart("Preferred to the reference", "share, a tie counting half; 95 % intervals", "N", preferred),
        _chart("Preferred to one another", "share, a tie counting half; 95 % intervals", "N", further),
        _chart("Reward models by size", right, "N", {"of the most comparisons": list(most.items())}),
        _chart("Reward models by comparisons", right, "comparisons", by_count),
    ]
    drawn = "".join(charts)
    sections = [
        '<header><div class="title"><h1>By size of the model</h1></div></header>',
        f'<div class="charts">{drawn}</div>',
        _table(
            "Whose answers are preferred", rows, ("role", "against", "parameters"), ("wins", "ties", "losses")
        ),
        _table("Reward models", judged, ("parameters", "comparisons"), ("pairs",)),
    ]
    write_atomic(out, document("By size of the model", sections, "by size"))


def _chart(title: str, unit: str, x_name: str, lines: Mapping[str, Sequence[tuple[float, Row]]]) -> str:
    """A line with its interval for each label: (x, row) of its points; nothing without any."""
    series = []
    for number, (label, points) in enumerate(lines.items()):
        x = np.array([place for place, _ in points], dtype=np.float64)
        tone = TONES[number % len(TONES)]
        ends: tuple[tuple[str, str, Style], ...] = (
            ("value", label, "line"), ("low", f"{label}, 95 %", "faint"), ("high", f"{label}, 95 %", "faint"),
        )  # fmt: skip
        for name, shown, style in ends:
            y = np.array([row[name] for _, row in points], dtype=np.float64)
            series.append(Series(shown, x, y, tone, style))
    return line_chart(Chart(title, unit, series, x_name=x_name, is_log_x=True, height=TALL))


def _table(title: str, rows: Sequence[Row], before: Sequence[str], after: Sequence[str]) -> str:
    if not rows:
        return ""
    shown = [
        [
            *(human_count(row[name]) if name == "parameters" else str(row[name]) for name in before),
            f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]",
            *(str(row[name]) for name in after),
        ]
        for row in rows
    ]
    return f"<h2>{escape(title)}</h2>" + table([*before, "share", *after], shown)
