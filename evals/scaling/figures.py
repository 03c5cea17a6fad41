"""Charts of a fit, on logarithmic axes."""

from typing import Any

import numpy as np

from evals.report.charts import TALL, Chart, Series, line_chart
from evals.scaling.approaches import Parabola, budgets_of, by_envelope, by_isoflops, compute_of, parabola
from evals.scaling.laws import Law
from evals.scaling.optimum import compute_optimal
from evals.scaling.study import Study
from seedbed.errors import DataError
from seedbed.progress import human_count

MOST_BUDGETS = 12
CURVE = 80
"""Points of a drawn curve."""
DRAWN = 200
"""Resampled laws that a band is drawn from."""


def loss_chart(done: Study) -> str:
    """Loss over size, a curve of the law for each budget."""
    points = done.points
    order = np.argsort(points.quantities[:, 0])
    series = [Series("runs", points.quantities[order, 0], points.losses[order], "validation", "points")]
    compute = compute_of(points)
    for group in _budgets(done):
        budget = float(np.exp(np.log(compute[group]).mean()))
        sizes = points.quantities[group, 0]
        x = np.geomspace(sizes.min(), sizes.max(), CURVE)
        y = done.found.law.loss(np.stack([x, budget / 6 / x], axis=1))
        series.append(Series("law at equal compute", x, y, "train", "faint"))
    return _logarithmic("Loss over parameters", "nats, a curve for each budget", "N", series)


def frontier_chart(done: Study) -> str:
    """The least loss of a budget, with its band, over the runs."""
    points, law = done.points, done.found.law
    compute = compute_of(points)
    order = np.argsort(compute)
    x = np.geomspace(compute.min(), 10 * compute.max(), CURVE)
    bands = np.array([[_least(one, budget) for budget in x] for one in _drawn(done)])
    low, high = np.nanpercentile(bands, (2.5, 97.5), axis=0)
    series = [
        Series("runs", compute[order], points.losses[order], "validation", "points"),
        Series("compute-optimal", x, np.array([_least(law, budget) for budget in x]), "train"),
        Series("95 %", x, low, "train", "faint"),
        Series("95 %", x, high, "train", "faint"),
    ]
    return _logarithmic("Frontier", "nats, least loss of a budget C in FLOP", "C", series)


def size_chart(done: Study) -> str:
    """The best size over the budget, by all three approaches that the points allow."""
    compute = compute_of(done.points)
    x = np.geomspace(compute.min(), 10 * compute.max(), CURVE)
    best = np.array([compute_optimal(done.found.law, budget).parameters for budget in x])
    series = [Series("3: the law", x, best, "train")]
    try:
        first = by_envelope(done.points, num=0)
        chosen = list(first.frontier)
        series.append(
            Series("1: the envelope", x, np.array([first.size(one) for one in x]), "plain", "faint")
        )
        series.append(
            Series("1: its runs", compute[chosen], done.points.quantities[chosen, 0], "plain", "points")
        )
    except DataError:
        pass
    try:
        second = by_isoflops(done.points, num=0)
        budgets = np.array([one.compute for one in second.parabolas])
        lowest = np.array([one.best_size for one in second.parabolas])
        series.append(
            Series("2: parabolas", x, np.array([second.size(one) for one in x]), "validation", "faint")
        )
        series.append(Series("2: their lowest points", budgets, lowest, "validation", "points"))
    except DataError:
        pass
    return _logarithmic("Best size", "parameters for C FLOP, by three approaches", "C", series)


def residual_chart(done: Study) -> str:
    """What the law leaves, over size."""
    points = done.points
    order = np.argsort(points.quantities[:, 0])
    left = 100 * np.log(points.losses / done.found.law.loss(points.quantities))
    chart = Chart(
        "Residuals",
        "% of the loss, measured above predicted",
        [Series("residual", points.quantities[order, 0], left[order], "validation", "points")],
        references=[("", 0.0)],
        x_name="N",
        is_log_x=True,
    )
    return line_chart(chart)


def isoflop_charts(done: Study) -> list[str]:
    """Of each budget its runs, its parabola, and the law."""
    return [chart for group in _budgets(done) if (chart := _isoflop(done, group))]


def profile_charts(record: dict[str, Any]) -> list[str]:
    """How much worse the fit becomes as one parameter is moved: where it is flat, nothing is known."""
    charts = []
    for one in record["identifiability"]["profiles"]:
        path = np.array([pair for pair in one["path"] if pair[0] > 0])
        if len(path) > 2:
            curve = Series(one["name"], path[:, 0], path[:, 1], "train", "dots")
            unit = "standard errors from the best fit"
            charts.append(line_chart(Chart(one["name"], unit, [curve], x_name=one["name"], is_log_x=True)))
    return charts


def _isoflop(done: Study, group: np.ndarray) -> str:
    points = done.points
    sizes, losses = points.quantities[group, 0], points.losses[group]
    budget = float(np.exp(np.log(compute_of(points)[group]).mean()))
    found = parabola(budget, sizes, losses)
    order = np.argsort(sizes)
    x = np.geomspace(sizes.min(), sizes.max(), CURVE)
    law = done.found.law.loss(np.stack([x, budget / 6 / x], axis=1))
    series = [
        Series("runs", sizes[order], losses[order], "validation", "points"),
        Series("law", x, law, "train"),
    ]
    note = "no parabola: too few sizes, or no lowest point"
    if found:
        series.append(Series("parabola", x, np.polyval(found.coefficients, np.log(x)), "plain", "faint"))
        note = _lowest(found)
    best = compute_optimal(done.found.law, budget).parameters
    note += f"; of the law at {human_count(best)}"
    return line_chart(Chart(f"{budget:.3g} FLOP", "nats", series, x_name="N", is_log_x=True, note=note))


def _lowest(found: Parabola) -> str:
    where = "" if found.is_inside else ", outside of the sizes"
    return f"lowest at {human_count(found.best_size)}{where}"


def _budgets(done: Study) -> list[np.ndarray]:
    """The budgets of the most runs, in order of compute."""
    compute = compute_of(done.points)
    groups = [group for group in budgets_of(compute) if len(np.unique(done.points.quantities[group, 0])) > 2]
    most = sorted(groups, key=len, reverse=True)[:MOST_BUDGETS]
    return sorted(most, key=lambda group: float(compute[group].mean()))


def _drawn(done: Study) -> list[Law]:
    return [Law(done.drawn.names, theta) for theta in done.drawn.thetas[:DRAWN]]


def _least(law: Law, budget: float) -> float:
    with np.errstate(all="ignore"):
        return compute_optimal(law, budget).loss


def _logarithmic(title: str, unit: str, x_name: str, series: list[Series]) -> str:
    return line_chart(Chart(title, unit, series, x_name=x_name, is_log=True, is_log_x=True, height=TALL))
