"""What a reward model's evaluation found: how often it is right, and whether it knows when."""

import numpy as np

from evals.report.charts import Chart, Series, line_chart
from evals.report.record import Row, RunRecord, number
from evals.report.tables import card, facts, interval


def rewards_section(record: RunRecord) -> str:
    """Accuracy beside that of length, and the reliability diagram; empty of what is no reward model."""
    found = [row for row in record.evals if row.get("task") == "preferences" and number(row.get("value"))]
    if not found:
        return ""
    result = max(found, key=lambda row: (row.get("step", 0), row.get("time", 0)))
    return f"<h2>Preferences</h2><div class=two>{_reliability(result)}{_accuracy(result)}</div>"


def _reliability(result: Row) -> str:
    fit = result.get("calibration") or {}
    series = [Series("as sure as right", np.array([0.5, 1.0]), np.array([0.5, 1.0]), style="faint")]
    for label, name, tone in (
        ("as it is", "reliability", "train"),
        ("at the fitted temperature", "reliability_after", "validation"),
    ):
        rows = fit.get(name) or []
        x = np.array([row["confidence"] for row in rows])
        series.append(Series(label, x, np.array([row["accuracy"] for row in rows]), tone=tone))  # type: ignore[arg-type]
    return line_chart(
        Chart(
            "Reliability",
            "share of pairs in the raters' order",
            series,
            x_name="confidence",
            note="Bins of confidence in the better answer; pairs that the temperature was not fitted on.",
            x_range=(0.5, 1.0),
        )
    )


def _accuracy(result: Row) -> str:
    length, fit = result.get("length_baseline") or {}, result.get("calibration") or {}
    rows = [("accuracy", _share(result)), ("pairs", f"{result.get('pairs', 0):,}")]
    if length:
        rows.append((f"the {length.get('prefers')} answer", _share(length)))
    for label, name in (("calibration error", "ece"), ("after the temperature", "ece_after")):
        if number(fit.get(name)) is not None:
            rows.append((label, f"{fit[name]:.3f}"))
    if number(fit.get("temperature")) is not None:
        rows.append(("fitted temperature", f"{fit['temperature']:.3g}"))
    return card(f"Held-out comparisons, step {result.get('step', 0):,}", facts(rows))


def _share(row: Row) -> str:
    return f"{row['value']:.3f} {interval(number(row.get('low')), number(row.get('high')))}"
