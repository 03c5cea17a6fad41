"""Intervals by profile likelihood: how far a parameter can be moved while all others make up for it.

A parameter is held at a value, the rest is fitted again, and the rise of the objective is measured in
standard errors: z = sqrt(2 (S - S_min) / tau), tau = mean(psi^2) / mean(psi'), which is the noise's variance
for squares and what robust penalties have in its place (Ronchetti 1982; Heritier and Ronchetti 1994). The
ends of a 95 % interval are where z is Student's t. Where z never gets there, the points do not determine the
parameter, and its interval is open.
"""

from dataclasses import dataclass

import numpy as np

from evals.scaling.fit import Fit, refit
from evals.scaling.laws import Array, Points, jacobian
from seedbed.statistics import t_quantile

NUM_ROUNDS = 14
CLOSE = 0.01
"""Of z, relative: when an end is found."""
FARTHEST = 4.0
"""Factor by which a distance may grow from one round to the next."""
SMALLEST = 1e-100


@dataclass(frozen=True)
class Profile:
    """What the points say of one parameter, in its natural unit (E, A, alpha, ...)."""

    name: str
    low: float
    """0 where nothing bounds an amplitude or asymptote from below, -inf an exponent."""
    high: float
    """inf where nothing bounds it from above."""
    path: tuple[tuple[float, float], ...]
    """(value, z) of the fits that were made on the way, by value: a parabola's root, if all is well."""

    @property
    def is_open(self) -> bool:
        """Whether the points bound the parameter on one side at most."""
        return not (np.isfinite(self.high) and self.low > (0 if self.name[0] in "EAB" else -np.inf))


def degrees_of_freedom(points: Points, found: Fit) -> int:
    """Points beyond the parameters that were fitted."""
    return max(1, len(points) - int((~found.held).sum()))


def noise_scale(points: Points, found: Fit) -> float:
    """tau, with as many degrees of freedom taken off as the law has parameters."""
    predicted = found.law.loss(points.quantities)
    freedom = degrees_of_freedom(points, found)
    if found.objective == "squared":
        return float(2 * np.sum((predicted - points.losses) ** 2) / freedom)
    residual = np.log(predicted / points.losses)
    if found.objective == "squared_log":
        return float(np.sum(residual**2) / freedom)
    bounded = np.clip(residual, -found.delta, found.delta)
    return float(np.sum(bounded**2) / freedom / _share_inside(residual, found))


def _share_inside(residual: Array, found: Fit) -> float:
    """Of points whose residual Huber's loss squares, as it would be among new ones.

    A penalty that is all but absolute passes through as many points as it has parameters: they say nothing.
    Where few of the others lie inside, their density is taken from the middle half of them.
    """
    sizes = np.sort(np.abs(residual))[int((~found.held).sum()) :]
    middle = float(np.median(sizes)) if len(sizes) else 0.0
    if middle <= found.delta:
        return max(0.5, float(np.mean(np.abs(residual) <= found.delta)))
    return 0.5 * found.delta / middle


def profiles(points: Points, found: Fit, level: float = 0.95) -> tuple[Profile, ...]:
    """Of every parameter that was fitted, all ends side by side."""
    theta = found.law.theta
    num_parameters = len(theta)
    tau = max(noise_scale(points, found), SMALLEST)
    wanted = t_quantile(0.5 + level / 2, degrees_of_freedom(points, found))
    tangents = _tangents(points, found, tau)
    free = np.flatnonzero(~found.held)
    which, signs = np.repeat(free, 2), np.tile([-1.0, 1.0], len(free))
    rows = np.arange(len(which))
    held = np.zeros((len(which), num_parameters), dtype=bool)
    held[rows, which] = True
    errors = np.abs(tangents[np.arange(num_parameters), np.arange(num_parameters)])[which]
    distance = signs * wanted * errors
    offset = tangents[which] * (distance / np.where(errors > 0, errors, 1.0))[:, None]
    paths: list[list[tuple[float, float]]] = [[(theta[j], 0.0)] for j in range(num_parameters)]
    ends, closest = np.full(len(which), np.nan), np.full(len(which), np.inf)
    for _ in range(NUM_ROUNDS):
        starts = theta + offset
        starts[rows, which] = theta[which] + distance
        met = refit(points, found, starts, held=held)
        z = np.sqrt(2 * np.maximum(met.values - found.value, 0.0) / tau)
        for row in rows[np.abs(z / wanted - 1) < closest]:
            closest[row], ends[row] = abs(z[row] / wanted - 1), theta[which[row]] + distance[row]
        for row in rows:
            paths[which[row]].append((float(theta[which[row]] + distance[row]), float(z[row])))
        if (closest <= CLOSE).all():
            break
        factor = np.clip(wanted / np.maximum(z, 1e-9), 1 / FARTHEST, FARTHEST)
        factor = np.where(closest <= CLOSE, 1.0, factor)
        offset = (met.points - theta) * factor[:, None]
        distance = distance * factor
    ends = np.where(closest <= 10 * CLOSE, ends, signs * np.inf)
    names = parameter_names(num_parameters)
    return tuple(
        Profile(
            names[j],
            _natural(names[j], ends[2 * place]),
            _natural(names[j], ends[2 * place + 1]),
            tuple(sorted((_natural(names[j], value), z) for value, z in paths[j])),
        )
        for place, j in enumerate(free)
    )


def parameter_names(num_parameters: int) -> list[str]:
    """Of theta, as the literature writes them: E, A, alpha, B, beta."""
    usual = ["E", "A", "alpha", "B", "beta"]
    if num_parameters <= len(usual):
        return usual[:num_parameters]
    return ["E"] + [f"{kind}_{k}" for k in range(1, num_parameters // 2 + 1) for kind in ("A", "alpha")]


def _natural(name: str, value: float) -> float:
    """Amplitudes and asymptotes are searched as logarithms."""
    return float(np.exp(value)) if name[0] in "EAB" else float(value)


def _tangents(points: Points, found: Fit, tau: float) -> Array:
    """[P, P]: row j is how all parameters go when parameter j goes up by one standard error."""
    columns = jacobian(found.law.theta, np.log(points.quantities))
    predicted = found.law.loss(points.quantities)
    if found.objective == "squared":
        columns = columns * predicted[:, None] * np.sqrt(2.0)
    elif found.objective == "huber":
        columns = columns * np.sqrt(_share_inside(np.log(predicted / points.losses), found))
    columns[:, found.held] = 0.0
    scale = np.maximum(np.linalg.norm(columns, axis=0), SMALLEST)
    covariance = tau * np.linalg.pinv((columns / scale).T @ (columns / scale)) / np.outer(scale, scale)
    return covariance / np.sqrt(np.maximum(np.diag(covariance), SMALLEST))[:, None]
