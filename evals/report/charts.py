"""Charts as SVG, written in Python: no script is needed to draw them and no file to load.

A chart is as wide as the page lets it be. Positions along x are percentages of the plot and positions along
y are pixels, so text keeps its size on a phone; curves live in an inner SVG that stretches sideways, with
strokes that do not. Axis labels stand outside the plot, which lets them overflow.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import pairwise
from typing import Literal

import numpy as np

from evals.report.axes import Axis, linear_axis, log_axis, value_label
from evals.report.series import finite_runs, thin

Tone = Literal["train", "validation", "plain"]
Style = Literal["line", "faint", "dots", "points"]
"""A line, a thin one, a line with a dot at each value, dots alone."""
MarkKind = Literal["attempt", "death", "checkpoint", "alarm"]

HEIGHT = 190
TALL = 280
LABEL_GAP = 14
MAX_NAME_BESIDE = 6
MARK_NAMES: dict[MarkKind, str] = {
    "attempt": "new attempt",
    "death": "worker died",
    "checkpoint": "checkpoint saved",
    "alarm": "gold falls",
}


TINY = 1e-100
"""Not on any logarithmic axis, and what is as large neither: parameters that points do not determine."""


@dataclass(frozen=True)
class Series:
    """One curve. `tone` picks its colour; a faint one has no end label."""

    label: str
    x: np.ndarray
    y: np.ndarray
    tone: Tone = "plain"
    style: Style = "line"


@dataclass(frozen=True)
class Mark:
    """Something that happened at `x`; `text` is shown when it is pointed at."""

    x: float
    kind: MarkKind
    text: str


@dataclass(frozen=True)
class Chart:
    """What a line chart shows. `references` are horizontal lines, as (label, y)."""

    title: str
    unit: str
    series: Sequence[Series]
    marks: Sequence[Mark] = ()
    references: Sequence[tuple[str, float]] = ()
    x_name: str = "step"
    is_log: bool = False
    is_log_x: bool = False
    from_zero: bool = False
    height: int = HEIGHT
    note: str = ""
    show_mark_key: bool = False
    is_wide: bool = False
    x_range: tuple[float, float] | None = None
    """The same for all charts of a page, so that marks stand above one another."""


def line_chart(chart: Chart) -> str:
    """The chart as an HTML figure; empty when no series has a value to show."""
    curves = [_drawable(series, chart) for series in chart.series]
    axes = _axes(chart, curves)
    if axes is None:
        return ""
    x_axis, y_axis = axes
    height = chart.height
    marks = [mark for mark in chart.marks if x_axis.low <= mark.x <= x_axis.high]
    plot = "".join(
        [
            _grid(x_axis, y_axis, height, chart.x_name),
            *(_mark(mark, x_axis, height) for mark in marks),
            _references(chart.references, y_axis, height),
            *(_curve(series, x_axis, y_axis, height) for series in curves),
            _end_labels(curves, y_axis, height),
            f'<line class="cursor" x1="0" x2="0" y1="0" y2="{height}"/>',
        ]
    )
    note = " ".join(filter(None, [chart.note, _missing_note(curves)]))
    return (
        f'<figure class="chart{" full" if chart.is_wide else ""}">'
        f'<figcaption><h3>{escape(chart.title)} <span class="unit">{escape(chart.unit)}</span></h3>'
        f"{_key(curves, marks if chart.show_mark_key else [])}</figcaption>"
        f'<div class="plot"><svg width="100%" height="{height}" role="img" '
        f'aria-label="{escape(_summary(chart, curves), quote=True)}">{plot}</svg></div>'
        f'<p class="readout" aria-hidden="true"></p><p class="note">{escape(note)}</p>'
        f"{_hover_data(chart.x_name, x_axis, curves)}</figure>"
    )


def _drawable(series: Series, chart: Chart) -> Series:
    """The series with NaN wherever its value cannot be drawn."""
    x, y = np.asarray(series.x, dtype=np.float64), np.asarray(series.y, dtype=np.float64)
    drawable = (y > TINY) & (y < 1 / TINY) if chart.is_log else np.isfinite(y)
    if chart.is_log_x:
        drawable &= (x > TINY) & (x < 1 / TINY)
    return replace(series, x=x, y=np.where(drawable, y, np.nan))


def _axes(chart: Chart, curves: Sequence[Series]) -> tuple[Axis, Axis] | None:
    x = np.concatenate([s.x[np.isfinite(s.y) & np.isfinite(s.x)] for s in curves] or [np.zeros(0)])
    y = np.concatenate([s.y[np.isfinite(s.y) & np.isfinite(s.x)] for s in curves] or [np.zeros(0)])
    if not len(x):
        return None
    y = np.concatenate([y, [value for _, value in chart.references]])
    low, high = float(y.min()), float(y.max())
    if chart.is_log:
        y_axis = log_axis(low, high, tight=chart.is_log_x)
    elif chart.from_zero:
        y_axis = linear_axis(min(0.0, low), high if high > 0 else 1.0)
    else:
        y_axis = linear_axis(low, high)
    ends = chart.x_range or (float(x.min()), float(x.max()))
    return log_axis(*ends, tight=True) if chart.is_log_x else linear_axis(*ends, tight=True), y_axis


def _percent(axis: Axis, value: float) -> str:
    return f"{axis.fraction(value) * 100:.2f}%"


def _pixel(axis: Axis, value: float, height: int) -> float:
    return round((1 - axis.fraction(value)) * height, 1)


def _grid(x_axis: Axis, y_axis: Axis, height: int, x_name: str) -> str:
    parts = []
    for value, label in y_axis.ticks:
        y = _pixel(y_axis, value, height)
        parts.append(
            f'<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
            f'<text class="tick" x="-8" y="{y}" dy="0.32em" text-anchor="end">{escape(label)}</text>'
        )
    for value, label in x_axis.ticks:
        x = _percent(x_axis, value)
        parts.append(
            f'<line class="tickmark" x1="{x}" x2="{x}" y1="{height}" y2="{height + 4}"/>'
            f'<text class="tick" x="{x}" y="{height + 18}" text-anchor="middle">{escape(label)}</text>'
        )
    # A long name has no room beside the first tick: it stands above the end of the axis.
    x, y = ("-8", height + 18) if len(x_name) <= MAX_NAME_BESIDE else ("100%", height - 6)
    parts.append(
        f'<line class="base" x1="0" x2="100%" y1="{height}" y2="{height}"/>'
        f'<text class="tick name" x="{x}" y="{y}" text-anchor="end">{escape(x_name)}</text>'
    )
    return "".join(parts)


def _curve(series: Series, x_axis: Axis, y_axis: Axis, height: int) -> str:
    css = f"{series.tone} {series.style}"
    if series.style == "points":
        return "".join(
            f'<circle class="{css}" cx="{_percent(x_axis, a)}" cy="{_pixel(y_axis, b, height)}" r="2.5"/>'
            for a, b in zip(series.x.tolist(), series.y.tolist(), strict=True)
            if math.isfinite(a) and math.isfinite(b)
        )
    path = []
    dots = []
    for run_x, run_y in finite_runs(series.x, series.y):
        xs, ys = thin(run_x, run_y)
        points = [
            (x_axis.fraction(a), _pixel(y_axis, b, height))
            for a, b in zip(xs.tolist(), ys.tolist(), strict=True)
        ]
        if series.style == "dots" and len(points) <= 60:
            dots += [f'<circle class="{css}" cx="{a * 100:.2f}%" cy="{b}" r="2.5"/>' for a, b in points]
        # A lone point is drawn by the round ends of a line without length.
        points = points if len(points) > 1 else [*points, *points]
        path.append("M" + "L".join(f"{a * 1000:.1f} {b}" for a, b in points))
    return (
        f'<svg class="stretch" viewBox="0 0 1000 {height}" preserveAspectRatio="none" width="100%" '
        f'height="{height}"><path class="{css}" d="{"".join(path)}"/></svg>{"".join(dots)}'
    )


def _mark(mark: Mark, x_axis: Axis, height: int) -> str:
    x = _percent(x_axis, mark.x)
    title = f"<title>{escape(mark.text)}</title>"
    if mark.kind == "checkpoint":
        shape = f'<svg x="{x}" y="{height}" class="glyph"><path d="M0 -1l-3.5 6h7z"/>{title}</svg>'
    else:
        shape = f'<line x1="{x}" x2="{x}" y1="0" y2="{height}">{title}</line>'
        if mark.kind == "death":
            shape += f'<svg x="{x}" y="0" class="glyph"><path d="M-3.5 -3.5l7 7m0 -7l-7 7"/>{title}</svg>'
    return f'<g class="mark {mark.kind}">{shape}</g>'


def _references(references: Sequence[tuple[str, float]], y_axis: Axis, height: int) -> str:
    """Horizontal lines; those too close for a label each share the one above the topmost of them."""
    lines = sorted((_pixel(y_axis, value, height), label, value) for label, value in references)
    strokes, groups = [], list[tuple[float, list[str]]]()
    for y, label, value in lines:
        strokes.append(f'<line class="reference" x1="0" x2="100%" y1="{y}" y2="{y}"/>')
        text = f"{label} {value_label(value)}"
        if groups and y - groups[-1][0] < LABEL_GAP:
            groups[-1][1].append(text)
        else:
            groups.append((y, [text]))
    texts = [
        f'<text class="reference" x="100%" dx="-4" y="{max(y - 4, 10):.1f}" text-anchor="end">'
        f"{escape(' · '.join(group))}</text>"
        for y, group in groups
    ]
    return "".join([*strokes, *texts])


def _end_labels(curves: Sequence[Series], y_axis: Axis, height: int) -> str:
    """The last value of each curve, beside where it ends."""
    named = [series for series in curves if series.style not in ("faint", "points")]
    ends = [(s.tone, _last(s)) for s in named if not math.isnan(_last(s))]
    places = spread([_pixel(y_axis, value, height) for _, value in ends], LABEL_GAP, 0, height)
    return "".join(
        f'<text class="end {tone}" x="100%" dx="7" y="{place:.1f}" dy="0.32em">'
        f"{escape(value_label(value))}</text>"
        for (tone, value), place in zip(ends, places, strict=True)
    )


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """`places` moved as little as a sweep allows, so that they are `gap` apart and within low..high."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    result = [min(max(place, low), high) for place in places]
    for before, after in pairwise(order):
        result[after] = max(result[after], result[before] + gap)
    limit = high
    for index in reversed(order):
        result[index] = min(result[index], limit)
        limit = result[index] - gap
    return result


def _last(series: Series) -> float:
    finite = series.y[np.isfinite(series.y)]
    return float(finite[-1]) if len(finite) else math.nan


def _key(curves: Sequence[Series], marks: Sequence[Mark]) -> str:
    entries = []
    if len(curves) > 1:
        # Curves of one name are of one kind.
        kinds = {s.label: s for s in reversed(curves) if np.isfinite(s.y).any()}
        entries = [
            f'<li><i class="swatch {s.tone} {s.style}"></i>{escape(s.label)}</li>'
            for s in reversed(kinds.values())
        ]
    for kind, name in MARK_NAMES.items():
        if any(mark.kind == kind for mark in marks):
            entries.append(f'<li><i class="swatch {kind}"></i>{name}</li>')
    return f'<ul class="key">{"".join(entries)}</ul>' if entries else ""


def _missing_note(curves: Sequence[Series]) -> str:
    missing = max(int((~np.isfinite(series.y)).sum()) for series in curves)
    if not missing:
        return ""
    return f"{missing:,} {'value is' if missing == 1 else 'values are'} missing or not finite: a gap."


def _summary(chart: Chart, curves: Sequence[Series]) -> str:
    parts = [f"{chart.title}, {chart.unit}, by {chart.x_name}."]
    for series in curves:
        finite = series.y[np.isfinite(series.y)]
        if len(finite) and series.style != "faint":
            parts.append(f"{series.label}: from {value_label(finite[0])} to {value_label(finite[-1])}.")
    return " ".join(parts)


def _hover_data(x_name: str, x_axis: Axis, curves: Sequence[Series]) -> str:
    shown = []
    for series in curves:
        good = np.isfinite(series.y) & np.isfinite(series.x)
        xs, ys = thin(series.x[good], series.y[good], 200)
        values = [float(f"{value:.5g}") for value in ys.tolist()]
        shown.append({"label": series.label, "x": xs.tolist(), "y": values})
    value = {"x": x_name, "low": x_axis.low, "high": x_axis.high, "is_log": x_axis.is_log, "series": shown}
    # Inside a script element only "<" can end it early.
    text = json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json">{text}</script>'
