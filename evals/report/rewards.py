"""What a reward model's evaluation found: how often it is right, and whether it knows when."""

from evals.report.record import Row, RunRecord, number
from evals.report.reliability import Curve, reliability_chart
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
    curves = [
        Curve("as it is", fit.get("reliability") or [], "train"),
        Curve("at the fitted temperature", fit.get("reliability_after") or [], "validation"),
    ]
    return reliability_chart(
        "Reliability",
        "share of pairs in the raters' order",
        curves,
        "Bins of confidence in the better answer; pairs that the temperature was not fitted on.",
        lowest=0.5,
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
