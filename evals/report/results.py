"""What the evaluation tasks found: the model beside compressors and an n-gram model, on the same bytes."""

from html import escape

from evals.report.charts import Bar, bar_chart
from evals.report.record import Row, RunRecord, number
from evals.report.tables import table
from seedbed.progress import human_bytes

LARGEST_SOURCES = 12


def newest_result(record: RunRecord) -> Row | None:
    """The bits-per-byte result of the newest step; of two, the one that has baselines."""
    found = [row for row in record.evals if row.get("task") == "bits-per-byte" and number(row.get("value"))]
    return max(
        found, key=lambda row: (row["step"], bool(row.get("baselines")), row.get("time", 0)), default=None
    )


def results_section(record: RunRecord) -> str:
    """Bars and a table by source; empty while there is no result."""
    result = newest_result(record)
    if result is None:
        return ""
    rows = [row for row in result.get("baselines") or [] if number(row.get("value"))]
    bars = [
        Bar(
            f"this model, step {result['step']:,}",
            result["value"],
            result.get("low"),
            result.get("high"),
            True,
        ),
        *(Bar(str(row["label"]), row["value"], row.get("low"), row.get("high")) for row in rows),
    ]
    bars.sort(key=lambda bar: bar.value)
    chart = bar_chart("Bits per byte", "fewer is better; whiskers: 95 % over documents", bars, _note(result))
    return f"<h2>Results</h2><div class=two>{chart}{_by_source(result)}</div>{_notes(rows)}"


def _note(result: Row) -> str:
    data = result.get("data") or {}
    split = f" ({data['split']} split)" if data.get("split") else ""
    return (
        f"{result.get('documents', 0):,} documents, {human_bytes(result.get('utf8_bytes', 0))}, "
        f"{result.get('tokens', 0):,} tokens of {data.get('path', 'unknown data')}{split}. "
        f"Items {str(result.get('items', ''))[:12]}."
    )


def _by_source(result: Row) -> str:
    sources = result.get("by_source") or {}
    shown = list(sources.items())[:LARGEST_SOURCES]
    if not shown:
        return ""
    rows = [
        [
            name if name != "." else "(no folder)",
            f"{row['documents']:,}",
            human_bytes(row["utf8_bytes"]),
            _interval(row),
        ]
        for name, row in shown
    ]
    left = len(sources) - len(shown)
    more = f"<p class=note>and {left:,} smaller ones</p>" if left > 0 else ""
    body = table(["folder", "documents", "text", "bits per byte"], rows, numbers=(1, 2, 3))
    return f'<div class="card"><h3>By source</h3>{body}{more}</div>'


def _interval(row: Row) -> str:
    low, high = number(row.get("low")), number(row.get("high"))
    ends = f" ({low:.2f}–{high:.2f})" if low is not None and high is not None else ""
    return f"{row['value']:.3f}{ends}"


def _notes(rows: list[Row]) -> str:
    if not rows:
        return ""
    entries = []
    for row in rows:
        trained = f"{human_bytes(row['train_bytes'])} of training text; " if row.get("train_bytes") else ""
        entries.append(
            f"<dt>{escape(str(row['label']))}</dt><dd>{escape(trained + str(row.get('note', '')))}</dd>"
        )
    return (
        "<details><summary>How the baselines were computed</summary>"
        f'<div class="card"><dl class="facts">{"".join(entries)}</dl></div></details>'
    )
