"""Horizontal bars from zero, with whiskers where a value has an interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from evals.report.tables import interval


@dataclass(frozen=True)
class Bar:
    """One bar: its value from zero, and the ends of its interval where there is one."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    is_ours: bool = False


def bar_chart(title: str, unit: str, bars: Sequence[Bar], note: str = "") -> str:
    """An HTML figure of at least one bar, in the order given, all on one scale."""
    longest = max(max(bar.value, bar.high or 0.0) for bar in bars) or 1.0
    note_html = f"<p class=note>{escape(note)}</p>" if note else ""
    return (
        f'<figure class="chart bars"><figcaption><h3>{escape(title)} '
        f'<span class="unit">{escape(unit)}</span></h3></figcaption>'
        f"{''.join(_bar(bar, longest) for bar in bars)}{note_html}</figure>"
    )


def _bar(bar: Bar, longest: float) -> str:
    ends = f' <span class="interval">{escape(interval(bar.low, bar.high))}</span>'
    shape = f'<rect x="0" y="1" height="12" rx="2" width="{max(0.0, bar.value / longest):.2%}"/>'
    if bar.low is not None and bar.high is not None:
        a, b = f"{max(0.0, bar.low / longest):.2%}", f"{bar.high / longest:.2%}"
        for x1, x2, y1, y2 in ((a, b, 7, 7), (a, a, 3, 11), (b, b, 3, 11)):
            shape += f'<line class="whisker" x1="{x1}" x2="{x2}" y1="{y1}" y2="{y2}"/>'
    return (
        f'<div class="bar{" ours" if bar.is_ours else ""}"><span class="label">{escape(bar.label)}</span>'
        f'<span class="value">{bar.value:.3f}{ends if bar.low is not None else ""}</span>'
        f'<svg width="100%" height="14" aria-hidden="true">{shape}</svg></div>'
    )
