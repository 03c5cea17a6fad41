"""Least values of a smooth function from many starts at once: BFGS, one numpy call for all of them.

Lewis and Overton (2013, "Nonsmooth optimization via quasi-Newton methods"): inverse updates of the Hessian
with a bisection for the weak Wolfe conditions, which also gets along with the corners of robust losses.

Shapes: S starts, P parameters.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Function = Callable[[Array, NDArray[np.intp]], tuple[Array, Array]]
"""(points [R, P], which starts they belong to [R]) -> (values [R], gradients [R, P])."""

DECREASE, CURVATURE = 1e-4, 0.9
NUM_BISECTIONS = 40


class Minimum(NamedTuple):
    """Where each start ended."""

    points: Array
    """[S, P]"""
    values: Array
    """[S]"""
    converged: NDArray[np.bool_]
    """[S]: whether it ended at a point from which no step leads down, rather than by the number of steps."""
    num_steps: NDArray[np.intp]
    """[S]"""


def minimise(
    function: Function, starts: Array, *, max_steps: int = 1000, gradient_tolerance: float = 1e-9
) -> Minimum:
    """Follow each of `starts` down until its gradient's largest part is below the tolerance, relative to the
    value (at least 1e-12), or no step lowers the value any more. What is not finite counts as infinite.
    """
    points = np.array(starts, dtype=np.float64)
    num_starts, num_parameters = points.shape
    values, gradients = _finite(*function(points, np.arange(num_starts)))
    inverse = np.broadcast_to(np.eye(num_parameters), (num_starts, num_parameters, num_parameters)).copy()
    is_fresh = np.ones(num_starts, dtype=bool)
    going = np.isfinite(values)
    converged = np.zeros(num_starts, dtype=bool)
    num_steps = np.zeros(num_starts, dtype=np.intp)
    for _ in range(max_steps):
        flat = np.abs(gradients).max(axis=1) <= gradient_tolerance * np.maximum(np.abs(values), 1e-12)
        converged |= going & flat
        going &= ~flat
        rows = np.flatnonzero(going)
        if not len(rows):
            break
        directions = -np.einsum("spq,sq->sp", inverse[rows], gradients[rows])
        slopes = np.einsum("sp,sp->s", directions, gradients[rows])
        uphill = slopes >= 0
        inverse[rows[uphill]] = np.eye(num_parameters)
        directions[uphill] = -gradients[rows[uphill]]
        slopes[uphill] = -np.einsum("sp,sp->s", directions[uphill], directions[uphill])
        taken, new_values, new_gradients = _line_search(
            function, rows, points[rows], values[rows], directions, slopes
        )
        moved = new_values < values[rows]
        # A start that cannot move gets one try with the plain gradient; after that it has arrived.
        stuck, retry = rows[~moved], ~is_fresh[rows[~moved]]
        inverse[stuck] = np.eye(num_parameters)
        is_fresh[stuck] = True
        converged[stuck[~retry]] = True
        going[stuck[~retry]] = False
        ahead = rows[moved]
        steps = taken[moved, None] * directions[moved]
        changes = new_gradients[moved] - gradients[ahead]
        points[ahead] += steps
        values[ahead], gradients[ahead] = new_values[moved], new_gradients[moved]
        num_steps[ahead] += 1
        inverse[ahead] = _updated(inverse[ahead], steps, changes, is_fresh[ahead])
        is_fresh[ahead] = False
    return Minimum(points, values, converged, num_steps)


def _line_search(
    function: Function,
    rows: NDArray[np.intp],
    points: Array,
    values: Array,
    directions: Array,
    slopes: Array,
) -> tuple[Array, Array, Array]:
    """(step lengths, values, gradients) that satisfy the weak Wolfe conditions, or the lowest seen."""
    low, high = np.zeros(len(rows)), np.full(len(rows), np.inf)
    length = np.ones(len(rows))
    best, best_values = np.zeros(len(rows)), values.copy()
    best_gradients = np.zeros_like(points)
    open_ = np.ones(len(rows), dtype=bool)
    for _ in range(NUM_BISECTIONS):
        which = np.flatnonzero(open_)
        if not len(which):
            break
        trial = points[which] + length[which, None] * directions[which]
        found, gradients = _finite(*function(trial, rows[which]))
        lower = found < best_values[which]
        best[which[lower]] = length[which[lower]]
        best_values[which[lower]], best_gradients[which[lower]] = found[lower], gradients[lower]
        too_far = found > values[which] + DECREASE * length[which] * slopes[which]
        steep = np.einsum("sp,sp->s", gradients, directions[which]) < CURVATURE * slopes[which]
        high[which[too_far]] = length[which[too_far]]
        too_near = ~too_far & steep
        low[which[too_near]] = length[which[too_near]]
        open_[which[~too_far & ~steep]] = False
        bounded = np.isfinite(high[which])
        length[which] = np.where(bounded, (low[which] + high[which]) / 2, 2 * length[which])
    return best, best_values, best_gradients


def _updated(inverse: Array, steps: Array, changes: Array, is_first: NDArray[np.bool_]) -> Array:
    """BFGS; the first estimate is scaled by the curvature along the first step (Nocedal and Wright, 6.20)."""
    products = np.einsum("sp,sp->s", steps, changes)
    usable = products > 1e-300
    safe = np.where(usable, products, 1.0)
    scale = np.where(
        usable & is_first, safe / np.maximum(np.einsum("sp,sp->s", changes, changes), 1e-300), 1.0
    )
    inverse = inverse * scale[:, None, None]
    weighted = np.einsum("spq,sq->sp", inverse, changes)
    curvature = np.einsum("sp,sp->s", changes, weighted)
    cross = np.einsum("sp,sq->spq", weighted, steps)
    update = ((1 + curvature / safe) / safe)[:, None, None] * np.einsum("sp,sq->spq", steps, steps)
    update -= (cross + cross.transpose(0, 2, 1)) / safe[:, None, None]
    return inverse + np.where(usable, 1.0, 0.0)[:, None, None] * update


def _finite(values: Array, gradients: Array) -> tuple[Array, Array]:
    sound = np.isfinite(values) & np.isfinite(gradients).all(axis=1)
    return np.where(sound, values, np.inf), np.where(sound[:, None], gradients, 0.0)
