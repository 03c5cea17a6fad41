"""Fitting a law to points: from many starts, with analytic gradients, and saying how many of them agree.

The objective is a sum over points, never a mean: what an optimizer takes for flat must not depend on how
many points there are. (A mean, with default tolerances and one start, is how a published fit went wrong:
Besiroglu et al. 2024, arXiv:2404.10102.)
"""

import itertools
from collections.abc import Callable
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
CACHED = 16384
"""Numbers of an array that is worked on at once."""


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
    delta: float = DELTA
    """Of Huber's loss."""
    has_given_asymptote: bool = False
    """E was not fitted."""

    @property
    def held(self) -> NDArray[np.bool_]:
        """[P]: which parameters were not fitted."""
        return np.arange(len(self.law.theta)) < self.has_given_asymptote


def fit(
    points: Points,
    names: tuple[str, ...] = ("N", "D"),
    *,
    objective: Objective = "huber",
    delta: float = DELTA,
    starts: Array | None = None,
    asymptote: float | None = None,
) -> Fit:
    """The best law over all `starts` [S, P]; a grid of plausible ones by default.

    With `asymptote`, E is that. Raises DataError for points that cannot determine the law, or that lie below
    the asymptote.
    """
    check(points, names, asymptote)
    given = default_starts(points, asymptote) if starts is None else starts
    held = np.arange(given.shape[1]) < (asymptote is not None)
    found = optima(points, given, objective=objective, delta=delta, held=held if held.any() else None)
    best = int(np.argmin(found.values))
    close = found.values <= found.values[best] * (1 + AGREEMENT) + 1e-15
    return Fit(
        Law(names, found.points[best]),
        float(found.values[best]),
        objective,
        len(points),
        len(given),
        float(close.mean()),
        delta,
        asymptote is not None,
    )


def refit(
    points: Points,
    found: Fit,
    starts: Array,
    *,
    weights: Array | None = None,
    held: NDArray[np.bool_] | None = None,
) -> Minimum:
    """`optima` by the same recipe as `found`; what that held, and `held`, keep their values."""
    both = found.held if held is None else found.held | held
    return optima(
        points,
        starts,
        objective=found.objective,
        delta=found.delta,
        weights=weights,
        held=both if both.any() else None,
    )


def optima(
    points: Points,
    starts: Array,
    *,
    objective: Objective = "huber",
    delta: float = DELTA,
    weights: Array | None = None,
    held: NDArray[np.bool_] | None = None,
    is_tied: bool = False,
) -> Minimum:
    """Where each of `starts` [S, P] ends.

    `weights` [S, n] says how often each point counts for each start: a bootstrap is one row. Parameters that
    are `held` ([P] or [S, P]) keep their starts' values. With `is_tied` all exponents are one number, which
    the starts must agree with.
    """
    logs, log_losses = np.log(points.quantities), np.log(points.losses)
    middle = logs.mean(axis=0)
    # An amplitude at the middle of the points trades far less with its exponent than one at x = 1.
    centred = logs - middle
    begin = np.array(starts, dtype=np.float64)
    begin[:, 1::2] -= begin[:, 2::2] * middle
    project = _projection(len(begin), middle, held, is_tied)

    def some(theta: Array, rows: NDArray[np.intp]) -> tuple[Array, Array]:
        predicted, pull = log_loss(theta, centred)
        value, slope = penalty(predicted, log_losses, objective, delta)
        if weights is not None:
            value, slope = value * weights[rows], slope * weights[rows]
        return value.sum(axis=1), project(pull(slope), rows)

    def function(theta: Array, rows: NDArray[np.intp]) -> tuple[Array, Array]:
        # A few starts at a time: what they need stays in the processor's cache.
        size = max(1, CACHED // len(points))
        parts = [some(theta[i : i + size], rows[i : i + size]) for i in range(0, len(rows), size)]
        return np.concatenate([value for value, _ in parts]), np.concatenate([slope for _, slope in parts])

    ends = minimise(function, begin)
    theta = ends.points.copy()
    theta[:, 1::2] += theta[:, 2::2] * middle
    return ends._replace(points=theta)


def penalty(
    predicted: Array, log_losses: Array, objective: Objective, delta: float = DELTA
) -> tuple[Array, Array]:
    """(what each point adds to the objective, its derivative) by predicted ln L [..., n].

    Half the square of the difference, Huber's loss of it, which is linear beyond `delta`, or the square of
    the plain difference.
    """
    if objective == "squared":
        # Far beyond any loss the square would overflow.
        level = np.exp(np.minimum(predicted, 300.0))
        residual = level - np.exp(log_losses)
        return residual**2, 2 * residual * level
    residual = predicted - log_losses
    slope = residual if objective == "squared_log" else np.clip(residual, -delta, delta)
    return slope * (residual - slope / 2), slope


def _projection(
    num_starts: int, middle: Array, held: NDArray[np.bool_] | None, is_tied: bool
) -> Callable[[Array, NDArray[np.intp]], Array]:
    """What takes gradients [R, P] of starts [R] to the directions that are free.

    An amplitude at x = 1 is held by moving the one at the middle with its exponent.
    """
    if held is None and not is_tied:
        return lambda gradient, rows: gradient
    num_parameters = 1 + 2 * len(middle)
    # Rows are what must not change: parameters that are held, and differences of exponents that are tied.
    wanted = np.eye(num_parameters)
    wanted[np.arange(1, num_parameters, 2), np.arange(2, num_parameters, 2)] = middle
    mask = np.zeros(num_parameters, dtype=bool) if held is None else held
    fixed = np.where(np.broadcast_to(mask, (num_starts, num_parameters))[:, :, None], wanted, 0.0)
    if is_tied:
        differences = np.zeros((len(middle) - 1, num_parameters))
        differences[:, 2] = -1.0
        differences[np.arange(len(middle) - 1), np.arange(4, num_parameters, 2)] = 1.0
        fixed = np.concatenate(
            [fixed, np.broadcast_to(differences, (num_starts, *differences.shape))], axis=1
        )
    free = np.eye(num_parameters) - np.linalg.pinv(fixed) @ fixed
    return lambda gradient, rows: np.einsum("rp,rpq->rq", gradient, free[rows])


def default_starts(points: Points, asymptote: float | None = None) -> Array:
    """A grid over asymptotes below the least loss and over exponents; amplitudes share what is left at the
    middle of the points."""
    num_quantities = points.quantities.shape[1]
    middle = np.log(points.quantities).mean(axis=0)
    least = float(points.losses.min())
    rest = float(np.median(points.losses))
    levels = [share * least for share in (0.3, 0.6, 0.85, 0.97)] if asymptote is None else [asymptote]
    grid = []
    for level, *exponents in itertools.product(levels, *[(0.15, 0.35, 0.6)] * num_quantities):
        theta = [np.log(level)]
        for exponent, log in zip(exponents, middle, strict=True):
            amplitude = max(rest - level, 0.05 * rest) / num_quantities
            theta += [np.log(amplitude) + exponent * log, exponent]
        grid.append(theta)
    return np.array(grid)


def check(points: Points, names: tuple[str, ...], asymptote: float | None = None) -> None:
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
    if asymptote is None:
        return
    below = np.flatnonzero(points.losses <= asymptote)
    if len(below):
        raise DataError(
            f"{len(below)} of {len(points)} losses are not above the asymptote {asymptote:g}, the first of "
            f"them point {below[0] + 1}: {points.losses[below[0]]:g}",
            "give a lower asymptote, or leave it to the fit",
        )
