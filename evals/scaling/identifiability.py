"""What the points do not determine, said in plain sentences.

A fit always gives five numbers. Whether they mean anything shows in how wide their intervals are, in how far
the best use of a budget moves when one point is left out, and in how much of the plane the points cover.
"""

import numpy as np

from evals.scaling.fit import Fit, optima
from evals.scaling.intervals import Bootstrap
from evals.scaling.laws import Array, Law, Points, log_loss
from evals.scaling.optimum import compute_optimal

WIDE = 10.0
"""Ratio of an interval's ends from which a parameter is called undetermined."""
DECADE = 10.0
NOTHING = 0.01
"""Share of the least loss below which an asymptote is none."""
FEW_AGREE = 0.2
MOVED = 1.25
"""Factor by which the best size moves from which a point is called influential."""
ILL_CONDITIONED = 1e3


def intervals(drawn: Bootstrap) -> dict[str, tuple[float, float]]:
    """95 % intervals of E, of the A and B, and of the exponents, by bootstrap."""
    return {
        "E": drawn.interval(lambda law: law.asymptote),
        "A": drawn.interval(lambda law: law.amplitudes[0]),
        "B": drawn.interval(lambda law: law.amplitudes[1]),
        "alpha": drawn.interval(lambda law: law.exponents[0]),
        "beta": drawn.interval(lambda law: law.exponents[1]),
    }


def condition_number(law: Law, points: Points) -> float:
    """Of the derivatives of log loss by the parameters, each scaled to length 1 (Belsley 1980)."""
    _, gradient = log_loss(law.theta[None], np.log(points.quantities))
    columns = gradient[0]
    values = np.linalg.svd(columns / np.linalg.norm(columns, axis=0), compute_uv=False)
    return float(values[0] / values[-1])


def influence(points: Points, found: Fit, compute: float) -> Array:
    """[n] by which factor the best size for `compute` FLOP moves when a point is left out."""
    weights = 1 - np.eye(len(points))
    start = np.tile(found.law.theta, (len(points), 1))
    ends = optima(points, start, objective=found.objective, weights=weights)
    whole = compute_optimal(found.law, compute).parameters
    sizes = [compute_optimal(Law(found.law.names, theta), compute).parameters for theta in ends.points]
    return np.maximum(np.array(sizes) / whole, whole / np.array(sizes))


def warnings(points: Points, found: Fit, ends: dict[str, tuple[float, float]], compute: float) -> list[str]:
    """What a reader should know before believing the fit, one sentence each."""
    told = []
    for name, (low, high) in ends.items():
        if low <= 0 or high / low > WIDE:
            told.append(
                f"{name} is not determined by these points: its 95 % interval is {low:.4g} to {high:.4g}"
            )
    if found.law.asymptote < NOTHING * points.losses.min():
        told.append("the fit ends at E = 0: these points do not show a loss that nothing goes below")
    for name, values in zip(found.law.names, points.quantities.T, strict=True):
        spread = float(values.max() / values.min())
        if spread < DECADE:
            told.append(
                f"all {name} lie within a factor of {spread:.2g}: an exponent over less than a decade is a "
                "guess"
            )
    if found.agreeing < FEW_AGREE:
        told.append(
            f"of {found.num_starts} starts, {found.agreeing:.0%} agree on the optimum: it is a flat valley"
        )
    if (number := condition_number(found.law, points)) > ILL_CONDITIONED:
        told.append(f"the parameters trade against each other (condition number {number:.3g})")
    rows = np.column_stack([points.quantities, points.losses])
    if (num_repeated := len(rows) - len(np.unique(rows, axis=0))) > 0:
        told.append(
            f"{num_repeated} point(s) occur more than once: intervals are narrower than they should be"
        )
    moves = influence(points, found, compute)
    for number in np.argsort(-moves)[:5]:
        if moves[number] > MOVED:
            size, tokens = points.quantities[number]
            told.append(
                f"without the run of {size:.3g} parameters and {tokens:.3g} tokens, the best size for "
                f"{compute:.3g} FLOP is another by a factor of {moves[number]:.2f}"
            )
    return told
