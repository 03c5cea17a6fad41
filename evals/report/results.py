"""What the evaluation tasks found: the model beside compressors and an n-gram model, on the same bytes."""

from evals.report.bars import Bar, bar_chart
from evals.report.record import Row, RunRecord, number
from evals.report.tables import card, facts, interval, table
from seedbed.progress import human_bytes

LARGEST_SOURCES = 12


def newest_result(record: RunRecord) -> Row | None:
    """The bits-per-byte result of the newest step; of two, the one that has baselines."""
    found = [
        row
        for row in record.evals
        if row.get("task") == "bits-per-byte"
        and number(row.get("value"))
        and number(row.get("step")) is not None
    ]
    return max(
        found, key=lambda row: (row["step"], bool(row.get("baselines")), row.get("time", 0)), default=None
    )


def results_section(record: RunRecord) -> str:
    """Bars and a table by source; empty while there is no result."""
    result = newest_result(record)
    if result is None:
        return ""
    rows = baselines_of(result)
    ours = f"this model, step {result['step']:,}"
    bars = [Bar(ours, result["value"], number(result.get("low")), number(result.get("high")), is_ours=True)]
    bars += [Bar(str(row["label"]), row["value"], row.get("low"), row.get("high")) for row in rows]
    bars.sort(key=lambda bar: bar.value)
    chart = bar_chart("Bits per byte", "fewer is better; whiskers: 95 % over documents", bars, _note(result))
    return f"<h2>Results</h2><div class=two>{chart}{_by_source(result)}</div>{_methods(rows)}"


def baselines_of(result: Row | None) -> list[Row]:
    """The baselines of a result that have a value."""
    rows = (result or {}).get("baselines") or []
    return [row for row in rows if number(row.get("value")) and row.get("label")]


def _note(result: Row) -> str:
    data = result.get("data") or {}
    split = f" ({data['split']} split)" if data.get("split") else ""
    return (
        f"{result.get('documents', 0):,} documents, {human_bytes(result.get('utf8_bytes', 0))}, "
        f"{result.get('tokens', 0):,} tokens of {data.get('path', 'unknown data')}{split}. "
        f"Digest of the items: {str(result.get('items', ''))[:12]}."
    )


def _by_source(result: Row) -> str:
    sources = result.get("by_source") or {}
    rows = [
        [
            "(no folder)" if name == "." else name,
            f"{row['documents']:,}",
            human_bytes(row["utf8_bytes"]),
            f"{row['value']:.3f}",
            interval(number(row.get("low")), number(row.get("high")), 2),
        ]
        for name, row in list(sources.items())[:LARGEST_SOURCES]
    ]
    if not rows:
        return ""
    left = len(sources) - len(rows)
    more = f"<p class=note>and {left:,} smaller {'one' if left == 1 else 'ones'}</p>" if left else ""
    head = ["folder", "documents", "text", "bits per byte", "95 %"]
    return card("By source, largest first", table(head, rows, numbers=(1, 2, 3, 4)) + more)


def _methods(rows: list[Row]) -> str:
    if not rows:
        return ""
    entries = []
    for row in rows:
        trained = f"{human_bytes(row['train_bytes'])} of training text; " if row.get("train_bytes") else ""
        entries.append((str(row["label"]), trained + str(row.get("note", ""))))
    return (
        "<details><summary>How the baselines were computed</summary>"
        f'<div class="card">{facts(entries)}</div></details>'
    )
