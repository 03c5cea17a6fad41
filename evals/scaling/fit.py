"""Fitting a law to points: from many starts, with analytic gradients, and saying how many of them agree.

The objective is a sum over points, never a mean: what an optimizer takes for flat must not depend on how
many points there are. (A mean, with default tolerances and one start, is how a published fit went wrong:
Besiroglu et al. 2024, arXiv:2404.10102.)
"""

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evals.scaling.laws import Array, Law, Points, log_loss
from seedbed.errors import DataError
from seedbed.minimise import Minimum, minimise

Objective = Literal["huber", "squared_log", "squared"]
"""Huber of the difference of log losses (Hoffmann et al.), its square, or that of the plain difference."""
DELTA = 1e-3
"""Of Huber's loss, in log loss: a tenth of a percent."""
AGREEMENT = 1e-4
"""Relative difference of objectives up to which two starts have found the same optimum."""


@dataclass(frozen=True)
class Fit:
    """A law with how it was found."""

    law: Law
    value: float
    """The objective at the optimum."""
    objective: Objective
    num_points: int
    num_starts: int
    agreeing: float
    """The share of starts that ended at this optimum."""


def fit(
    points: Points,
    names: tuple[str, ...] = ("N", "D"),
    *,
    objective: Objective = "huber",
    delta: float = DELTA,
    starts: Array | None = None,
) -> Fit:
    """The best law over all `starts` [S, P]; a grid of plausible ones by default.

    Raises DataError for points that cannot determine it.
    """
    check(points, names)
    given = default_starts(points) if starts is None else starts
    found = optima(points, given, objective=objective, delta=delta)
    best = int(np.argmin(found.values))
    close = found.values <= found.values[best] * (1 + AGREEMENT) + 1e-15
    return Fit(
        Law(names, found.points[best]),
        float(found.values[best]),
        objective,
        len(points),
        len(given),
        float(close.mean()),
    )


def optima(
    points: Points,
    starts: Array,
    *,
    objective: Objective = "huber",
    delta: float = DELTA,
    weights: Array | None = None,
    fixed: dict[int, float] | None = None,
) -> Minimum:
    """Where each of `starts` [S, P] ends.

    `weights` [S, n] says how often each point counts for each start: a bootstrap is one row. `fixed`
    parameters (by index) are held at their values.
    """
    logs, log_losses = np.log(points.quantities), np.log(points.losses)
    held = np.array(sorted(fixed or {}), dtype=np.intp)

    def function(theta: Array, rows: NDArray[np.intp]) -> tuple[Array, Array]:
        predicted, gradient = log_loss(theta, logs)
        if objective == "squared":
            # Far beyond any loss the square would overflow.
            level = np.exp(np.minimum(predicted, 300.0))
            residual = level - points.losses
            value, slope = residual**2, 2 * residual * level
        else:
            value, slope = _log_penalty(predicted - log_losses, delta if objective == "huber" else None)
        if weights is not None:
            value, slope = value * weights[rows], slope * weights[rows]
        descent = np.einsum("sn,snp->sp", slope, gradient)
        descent[:, held] = 0.0
        return value.sum(axis=1), descent

    begin = np.array(starts, dtype=np.float64)
    for index, number in (fixed or {}).items():
        begin[:, index] = number
    return minimise(function, begin)


def _log_penalty(residual: Array, delta: float | None) -> tuple[Array, Array]:
    """(value, derivative) of half the square, or of Huber's loss: linear beyond `delta`."""
    if delta is None:
        return residual**2 / 2, residual
    size = np.abs(residual)
    inside = size <= delta
    value = np.where(inside, residual**2 / 2, delta * (size - delta / 2))
    return value, np.where(inside, residual, delta * np.sign(residual))


def default_starts(points: Points) -> Array:
    """A grid over asymptotes below the least loss and over exponents; amplitudes share what is left at the
    middle of the points."""
    num_quantities = points.quantities.shape[1]
    middle = np.log(points.quantities).mean(axis=0)
    least = float(points.losses.min())
    rest = float(np.median(points.losses))
    grid = []
    for share, *exponents in itertools.product((0.3, 0.6, 0.85, 0.97), *[(0.15, 0.35, 0.6)] * num_quantities):
        theta = [np.log(share * least)]
        for exponent, log in zip(exponents, middle, strict=True):
            amplitude = max(rest - share * least, 0.05 * rest) / num_quantities
            theta += [np.log(amplitude) + exponent * log, exponent]
        grid.append(theta)
    return np.array(grid)


def check(points: Points, names: tuple[str, ...]) -> None:
    """Raises DataError for what no fit can be made of, naming the points."""
    num_parameters = 1 + 2 * len(names)
    for what, values in (("loss", points.losses), *zip(names, points.quantities.T, strict=True)):
        bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
        if len(bad):
            raise DataError(
                f"{what} is not a positive number in {len(bad)} of {len(points)} points, the first of them "
                f"point {bad[0] + 1}: {values[bad[0]]}",
                "take these points out, or mend them",
            )
    if len(points) <= num_parameters:
        raise DataError(
            f"{len(points)} points cannot determine the {num_parameters} parameters of a law in "
            f"{', '.join(names)}",
            f"give at least {num_parameters + 1}, better some thirty",
        )
    for name, values in zip(names, points.quantities.T, strict=True):
        if len(np.unique(values)) < 2:
            raise DataError(
                f"all points have the same {name}", f"give points of at least two values of {name}"
            )
