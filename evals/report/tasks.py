"""What tasks found: a table with intervals, sources beside each other, calibration, and how it grew.

Results are those of `evals.task_results`, as they stand in RUN/evals. Checkpoints are drawn on one curve only
where they were asked the same items.
"""

from collections import defaultdict

import numpy as np

from evals.report.bars import Bar, bar_chart
from evals.report.charts import Chart, Series, line_chart
from evals.report.record import Row, RunRecord, number
from evals.report.reliability import Curve, reliability_chart
from evals.report.series import column
from evals.report.tables import NONE, card, interval, table
from evals.report.verdicts import verdicts_card

LARGEST_SOURCES = 12


def tasks_section(record: RunRecord) -> str:
    """Of the newest result of each task; empty while there is none."""
    histories = histories_of(record)
    if not histories:
        return ""
    newest = [history[-1] for history in histories]
    kinds = (_sources, _reliability, _robustness, _contamination, _distribution)
    charts = [kind(result) for result in newest for kind in kinds]
    charts += [chart for history in histories for chart in _growth(history)]
    tables = _table(newest) + verdicts_card(histories, record.path / "evals")
    return f'<h2>Tasks</h2><div class="charts">{tables}{"".join(filter(None, charts))}</div>'


def histories_of(record: RunRecord) -> list[list[Row]]:
    """Of each task the results on the items of its newest one, in the order of their steps; by name."""
    by_task: dict[str, list[Row]] = defaultdict(list)
    for row in record.evals:
        if _metrics_of(row) and number(row.get("step")) is not None:
            by_task[str(row.get("task"))].append(row | {"metrics": _metrics_of(row)})
    histories = []
    for _, rows in sorted(by_task.items()):
        rows = sorted(rows, key=lambda row: (row["step"], number(row.get("time")) or 0))
        same = {row["step"]: row for row in rows if row.get("items") == rows[-1].get("items")}
        histories.append(list(same.values()))
    return histories


def _metrics_of(result: Row) -> dict[str, Row]:
    """Those that are what they should be; a file may be of another version."""
    found = result.get("metrics")
    pairs = found.items() if isinstance(found, dict) else ()
    return {str(name): row for name, row in pairs if isinstance(row, dict)}


def _table(results: list[Row]) -> str:
    rows = []
    for result in results:
        for name, found in result["metrics"].items():
            # A companion says beside which metric it stands.
            beside = [other for other, row in result["metrics"].items() if row.get("smooth") == name]
            rows.append(
                [
                    str(result.get("task")),
                    name + (f" (beside {beside[0]})" if beside else ""),
                    _value(found.get("value")),
                    interval(number(found.get("low")), number(found.get("high"))) or NONE,
                    f"{number(found.get('items')) or 0:,.0f}",
                    f"{number(found.get('clusters')) or 0:,.0f} {found.get('over', '')}",
                    f"{result['step']:,}",
                ]
            )
    head = ["task", "metric", "value", "95 %", "items", "clusters", "step"]
    return card("Newest results", table(head, rows, numbers=(2, 3, 4, 5, 6)))


def _value(value: object) -> str:
    known = number(value)
    return NONE if known is None else f"{known:.3f}"


def _metric_of(result: Row) -> tuple[str, Row]:
    name = str(result.get("metric") or next(iter(result["metrics"])))
    return name, result["metrics"].get(name, {})


def _title(result: Row, name: str) -> str:
    return f"{result.get('task')}: {name}"


def _sources(result: Row) -> str:
    name, found = _metric_of(result)
    sources = {
        str(source): row[name]
        for source, row in (result.get("by_source") or {}).items()
        if isinstance(row.get(name), dict) and number(row[name].get("value")) is not None
    }
    bars = [
        Bar(source, row["value"], number(row.get("low")), number(row.get("high")))
        for source, row in list(sources.items())[:LARGEST_SOURCES]
    ]
    if not bars:
        return ""
    whole = number(found.get("value"))
    if whole is not None:
        bars.insert(0, Bar("all", whole, number(found.get("low")), number(found.get("high")), is_ours=True))
    better = "more is better" if found.get("greater_is_better", True) else "less is better"
    left = int(number(result.get("num_sources")) or len(sources)) - LARGEST_SOURCES
    note = "By source, largest first; whiskers: 95 % over documents."
    return bar_chart(_title(result, name), better, bars, note + (f" And {left:,} more." if left > 0 else ""))


def _reliability(result: Row) -> str:
    rows = [
        row
        for row in result.get("reliability") or []
        if None not in (number(row.get("accuracy")), number(row.get("confidence")))
    ]
    if not rows:
        return ""
    return reliability_chart(
        f"{result.get('task')}: reliability",
        "share right",
        [Curve("answers", rows)],
        "Bins of confidence in the answer that is taken; faint: 95 % of the share that is right.",
    )


def _robustness(result: Row) -> str:
    """As the questions are, and under changes of them."""
    found = result.get("robustness")
    if not isinstance(found, dict):
        return ""
    changed = found.get("by_perturbation") or {}
    rows = {"as they are": found.get("clean"), "changed, on average": found.get("mean")}
    rows |= {"each at its worst": found.get("worst")}
    rows |= {str(name).replace("_", " "): one.get("after") for name, one in changed.items()}
    title = f"{result.get('task')}: {found.get('metric')} under changes"
    return _bars(title, rows, "Whiskers: 95 % over documents. Verdicts on each change: in the result file.")


def _contamination(result: Row) -> str:
    """With and without items that stand in the training text."""
    found = result.get("contamination")
    if not isinstance(found, dict):
        return ""
    names = {"all": "all", "clean": "not in the training text", "overlapping": "in it"}
    rows = {name: found.get(key) for key, name in names.items()}
    counts = ", ".join(f"{count:,} {state}" for state, count in (found.get("counts") or {}).items())
    return _bars(f"{result.get('task')}: {found.get('metric')} by overlap", rows, f"Items: {counts}.")


def _distribution(result: Row) -> str:
    """Of sources that were trained on, and of others."""
    found = result.get("distribution")
    if not isinstance(found, dict) or "refused" in found:
        return ""
    rows = {name: found.get(key) for key, name in (("inside", "trained on"), ("outside", "not trained on"))}
    title = f"{result.get('task')}: {found.get('metric')} by sources"
    return _bars(title, rows, "Whiskers: 95 % over documents.")


def _bars(title: str, rows: dict[str, Row | None], note: str) -> str:
    """Of rows with value, low and high; the first is ours."""
    known = {name: row for name, row in rows.items() if row and number(row.get("value")) is not None}
    bars = [
        Bar(name, row["value"], number(row.get("low")), number(row.get("high")), is_ours=not place)
        for place, (name, row) in enumerate(known.items())
    ]
    return bar_chart(title, "", bars, note) if bars else ""


def _growth(history: list[Row]) -> list[str]:
    """The metric and its smooth companion over checkpoints."""
    if len(history) < 2:
        return []
    name, found = _metric_of(history[-1])
    charts = []
    for one in filter(None, (name, found.get("smooth"))):
        rows = [row["metrics"].get(one) or {} for row in history]
        steps = column(history, "step")
        curves = [Series(one, steps, column(rows, "value"), "validation")]
        for end in ("low", "high"):
            ends = column(rows, end)
            if np.isfinite(ends).any():
                curves.append(Series(f"95 %, {end}", steps, ends, "validation", "faint"))
        unit = str(rows[-1].get("unit") or "")
        charts.append(line_chart(Chart(_title(history[-1], str(one)), unit, curves)))
    return charts
