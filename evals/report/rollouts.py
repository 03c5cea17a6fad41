"""What a policy that learns from rewards came to: its reward, how far it went for it, and whether it is worth
it."""

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from evals.report.charts import Chart, Mark, Series, Tone, line_chart
from evals.report.record import Row, RunRecord, number
from evals.report.series import column
from evals.report.tables import card, facts
from evals.scaling.overoptimisation import OverOptimisation, measure
from seedbed.errors import DataError
from seedbed.statistics import Estimate

WORTH: tuple[tuple[str, Tone], ...] = (("reward", "train"), ("gold", "validation"))
ALARMS = ("over_optimised", "reward_in_doubt")
NUM_DRAWN = 60


def rollouts_section(record: RunRecord) -> str:
    """Of the iterations; empty for other runs."""
    rows = record.of_kind("rollouts")
    if not rows:
        return ""
    steps, marks = column(rows, "step"), alarms(record)
    worth = [Series(name, steps, column(rows, name), tone) for name, tone in WORTH if _known(rows, name)]
    fits = {name: fit for name, _ in WORTH if (fit := fitted(rows, name))}
    charts = [
        Chart("Reward", "mean of an iteration", worth, marks=marks, show_mark_key=True),
        by_distance(rows, worth, fits, marks),
        Chart(
            "Divergence", "nats an answer", [Series("from the reference", steps, column(rows, "kl"))], marks
        ),
        Chart(
            "Length",
            "tokens an answer",
            [Series("mean", steps, column(rows, "answer_tokens"))],
            marks,
            from_zero=True,
        ),
    ]
    if _known(rows, "disagreement"):
        apart = Series("of the reward models", steps, column(rows, "disagreement"))
        charts.append(Chart("Disagreement", "deviation, mean over answers", [apart], marks, from_zero=True))
    train = record.of_kind("train")
    for title, unit, name in (
        ("Entropy", "nats a token", "entropy"),
        ("Clipped", "share of tokens", "clipped"),
        ("Value loss", "mean over tokens", "value_loss"),
    ):
        if _known(train, name):
            series = Series(title.lower(), column(train, "step"), column(train, name))
            charts.append(Chart(title, unit, [series], from_zero=True))
    drawn = "".join(line_chart(chart) for chart in charts)
    return f'<h2>Rollouts</h2><div class="charts">{drawn}</div>{_laws(fits)}'


def alarms(record: RunRecord) -> list[Mark]:
    """Where gold was found to fall, or other signals spoke against the reward."""
    return [
        Mark(step, "alarm", str(event.get("message") or "the reward is over-optimised"))
        for event in record.events
        if event.get("kind") in ALARMS and (step := number(event.get("step"))) is not None
    ]


def fitted(rows: Sequence[Row], name: str) -> OverOptimisation | None:
    """The law of the reward or of gold over the root of the divergence; None where they determine none."""
    kl, values = column(rows, "kl"), column(rows, name)
    good = np.isfinite(kl) & np.isfinite(values)
    try:
        return measure(kl[good], values[good])
    except DataError:
        return None


def by_distance(
    rows: Sequence[Row], worth: Sequence[Series], fits: dict[str, OverOptimisation], marks: Sequence[Mark]
) -> Chart:
    """Reward and gold over the root of the divergence, with their laws."""
    root = np.sqrt(np.maximum(column(rows, "kl"), 0))
    series = [Series(one.label, root, one.y, one.tone, "dots") for one in worth]
    if np.isfinite(root).any():
        grid = np.linspace(0, float(np.nanmax(root)), NUM_DRAWN)
        for name, tone in WORTH:
            if name in fits and name in [one.label for one in worth]:
                series.append(Series(f"{name}, fitted", grid, fits[name].curve.reward(grid), tone))
    where = dict(zip(column(rows, "step").tolist(), root.tolist(), strict=True))
    return Chart(
        "Reward by distance",
        "mean of an iteration",
        series,
        [
            Mark(where[mark.x], mark.kind, mark.text)
            for mark in marks
            if math.isfinite(where.get(mark.x, math.nan))
        ],
        x_name="d",
        note="d is the root of the divergence from the reference, in nats. Where gold falls while the reward "
        "rises, the reward is over-optimised (Gao et al. 2023).",
    )


def _laws(fits: dict[str, OverOptimisation]) -> str:
    """The coefficients, and what speaks against them; nothing where there is no gold."""
    if "gold" not in fits:
        return ""
    entries = []
    for name, fit in fits.items():
        entries += [
            (f"{name}: alpha", _shown(fit.alpha)),
            (f"{name}: beta", _shown(fit.beta)),
            (f"{name}: peak at", _shown(fit.peak)),
        ]
    doubts = "".join(f"<p class=note>{escape(f'Of gold, {text}.')}</p>" for text in fits["gold"].warnings)
    title = "R = R\N{SUBSCRIPT ZERO} + d (\N{GREEK SMALL LETTER ALPHA} - \N{GREEK SMALL LETTER BETA} ln d)"
    return card(f"Over-optimisation: {title}", facts(entries) + doubts)


def _shown(estimate: Estimate) -> str:
    def text(value: float) -> str:
        return f"{value:.3g}" if math.isfinite(value) else "none"

    return f"{text(estimate.value)} [{text(estimate.low)}, {text(estimate.high)}]"


def _known(rows: Sequence[Row], name: str) -> bool:
    return bool(np.isfinite(column(rows, name)).any())
