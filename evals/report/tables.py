"""Tables and lists as HTML. Everything that goes in is text, and is escaped here."""

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from html import escape

NONE = "\N{EN DASH}"
"""Stands where a value is not known."""


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: Collection[int] = (),
    css_classes: Sequence[str] = (),
) -> str:
    """A table that scrolls sideways by itself where it is too wide. `numbers` are columns set to the right,
    `css_classes` gives each row's class."""
    kind = [' class="number"' if index in numbers else ' class="wide"' for index in range(len(head))]
    top = "".join(f"<th{kind[index]}>{escape(text)}</th>" for index, text in enumerate(head))
    body = []
    for index, row in enumerate(rows):
        cells = "".join(f"<td{kind[column]}>{escape(text)}</td>" for column, text in enumerate(row))
        css = f' class="{escape(css_classes[index])}"' if css_classes and css_classes[index] else ""
        body.append(f"<tr{css}>{cells}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr>{top}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values, for what is not a table."""
    entries = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs if value)
    return f'<dl class="facts">{entries}</dl>'


def card(title: str, body: str) -> str:
    """A titled box around `body`, which is HTML already."""
    return f'<div class="card"><h3>{escape(title)}</h3>{body}</div>'


def interval(low: float | None, high: float | None, decimals: int = 3) -> str:
    """Both ends of an interval, or nothing where it has none."""
    if low is None or high is None:
        return ""
    return f"{low:.{decimals}f}\N{EN DASH}{high:.{decimals}f}"


def clock(time: float | None) -> str:
    """A moment, in UTC: a report is read on other machines than the one that wrote it."""
    return "" if time is None else datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
