"""Reliability diagrams: how sure a model was, and how often it was right."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from evals.report.charts import Chart, Series, Tone, line_chart
from evals.report.record import Row


class Curve(NamedTuple):
    """Bins with "confidence" and "accuracy"; where they have "low" and "high", these are drawn faintly."""

    label: str
    rows: Sequence[Row]
    tone: Tone = "plain"


def reliability_chart(title: str, unit: str, curves: Sequence[Curve], note: str, lowest: float = 0.0) -> str:
    """Confidence from `lowest` to 1 against accuracy, with the line on which the two are equal."""
    ends = np.array([lowest, 1.0])
    series = [Series("as sure as right", ends, ends, style="faint")]
    for label, rows, tone in curves:
        x = np.array([row["confidence"] for row in rows])
        series.append(Series(label, x, _column(rows, "accuracy"), tone=tone))
        for key in ("low", "high"):
            if any(row.get(key) is not None for row in rows):
                series.append(Series(f"95 %, {key}", x, _column(rows, key), tone=tone, style="faint"))
    return line_chart(Chart(title, unit, series, x_name="confidence", note=note, x_range=(lowest, 1.0)))


def _column(rows: Sequence[Row], key: str) -> np.ndarray:
    return np.array([np.nan if row.get(key) is None else row[key] for row in rows], dtype=np.float64)
