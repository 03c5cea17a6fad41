"""What the points do not determine, said in plain sentences."""

from typing import Any

import numpy as np

from evals.scaling.fit import Fit
from evals.scaling.laws import Points
from evals.scaling.repetition import Worth

WIDE = 10.0
"""Ratio of an interval's ends from which a parameter is called undetermined."""
DECADE = 10.0
NOTHING = 0.01
"""Share of the least loss below which an asymptote is none."""
FEW_AGREE = 0.2
MOVED = 1.25
"""Factor by which the best size moves from which a point, a budget or a choice is called influential."""
ILL_CONDITIONED = 1e3


def warnings(
    points: Points, found: Fit, ends: dict[str, tuple[float, float]], report: dict[str, Any]
) -> list[str]:
    """What a reader should know before believing the fit, one sentence each.

    `ends` are intervals by name, `report` what `identifiability.report` says.
    """
    return [
        *_parameters(found, ends, report),
        *_cover(points, found),
        *_search(found, report),
        *_repeats(points),
        *_moves(report),
    ]


def repetition_warnings(worth: Worth | None) -> list[str]:
    """What runs that repeat their data do not say."""
    if worth is None:
        return []
    told = []
    for name, (low, high) in (("data", worth.data_interval), ("parameters", worth.parameters_interval)):
        if high / low > WIDE:
            told.append(
                f"R* of {name} is not determined by {worth.num_runs} runs that repeat their data: its 95 % "
                f"interval is {low:.3g} to {high:.3g}"
            )
    return told


def _parameters(found: Fit, ends: dict[str, tuple[float, float]], report: dict[str, Any]) -> list[str]:
    told = []
    open_sides = {one["name"]: one for one in report["profiles"] if one["is_open"]}
    for name, (low, high) in ends.items():
        if low <= 0 or high / low > WIDE:
            told.append(
                f"{name} is not determined by these points: its 95 % interval is {low:.4g} to {high:.4g}"
            )
        elif name in open_sides:
            low, high = open_sides[name]["interval"]
            side = "below" if low in (None, 0.0) else "above"
            told.append(
                f"{name} is not determined from {side}: with all else fitted again, any such value is as good"
            )
    return told


def _cover(points: Points, found: Fit) -> list[str]:
    told = []
    if found.law.asymptote < NOTHING * points.losses.min():
        told.append("the fit ends at E = 0: these points do not show a loss that nothing goes below")
    for name, values in zip(found.law.names, points.quantities.T, strict=True):
        spread = float(values.max() / values.min())
        if spread < DECADE:
            told.append(
                f"all {name} lie within a factor of {spread:.2g}: an exponent over less than a decade is a "
                "guess"
            )
    return told


def _search(found: Fit, report: dict[str, Any]) -> list[str]:
    told = []
    if found.agreeing < FEW_AGREE:
        told.append(
            f"of {found.num_starts} starts, {found.agreeing:.0%} agree on the optimum: it is a flat valley"
        )
    if (number := report["condition_number"]) > ILL_CONDITIONED:
        told.append(f"the parameters trade against each other (condition number {number:.3g})")
    return told


def _repeats(points: Points) -> list[str]:
    rows = np.column_stack([points.quantities, points.losses])
    num_repeated = len(rows) - len(np.unique(rows, axis=0))
    if not num_repeated:
        return []
    return [f"{num_repeated} point(s) occur more than once: intervals are narrower than they should be"]


def _moves(report: dict[str, Any]) -> list[str]:
    compute = report["compute"]
    told = [
        f"without the run of {one['parameters']:.3g} parameters and {one['tokens']:.3g} tokens, the best "
        f"size for {compute:.3g} FLOP is another by a factor of {one['factor']:.3g}"
        for one in report["influential"]
        if one["factor"] > MOVED
    ]
    size = report["counts"][0]["parameters"]
    groups = (
        ("without_budget", "without the budget of {budget:.3g} FLOP ({runs} runs)"),
        ("losses", "if errors were weighed as {objective}"),
        ("counts", "with N counted as {count}"),
    )
    for key, words in groups:
        for one in report[key]:
            factor = max(one["parameters"] / size, size / one["parameters"])
            if factor > MOVED:
                told.append(
                    f"{words.format(**one)}, the best size for {compute:.3g} FLOP is another by a factor of "
                    f"{factor:.3g}"
                )
    return told
