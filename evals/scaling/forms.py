"""Other laws than Hoffmann's, each fitted as its authors state it.

    Kaplan et al. 2020 (arXiv:2001.08361)     L = (N_c/N)^alpha_N, and the same in D, C and batch
                                              L = [(N_c/N)^(alpha_N/alpha_D) + D_c/D]^alpha_D
    Gadre et al. 2024 (arXiv:2403.08540)      L = E + (a M^eta + b M^-eta) C^-eta, M = D/N
                                              error = epsilon - k exp(-gamma L)
    McCandlish et al. 2018 (arXiv:1812.06162) S = S_min (1 + B_crit / B)

Repeated data (Muennighoff et al. 2023) are in repetition.py.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evals.scaling.fit import DELTA, Objective, check, default_starts, optima, penalty
from evals.scaling.laws import Array, Law, Points
from evals.scaling.optimum import FLOPS_PER_PARAMETER_AND_TOKEN
from seedbed.errors import DataError
from seedbed.minimise import minimise
from seedbed.statistics import Estimate, t_quantile

GAMMAS = (0.01, 20.0)
"""Where the exponent of an error law is looked for."""
LARGEST_LOSS = 100.0
"""In nats per token: beyond any model's."""
NOWHERE = -700.0
"""The logarithm of an asymptote that is none."""


@dataclass(frozen=True)
class StraightLine:
    """y = coefficient x^exponent with 95 % intervals: batch sizes, learning rates, Kaplan's single laws."""

    coefficient: Estimate
    exponent: Estimate

    def at(self, x: float) -> float:
        return self.coefficient.value * x**self.exponent.value

    @property
    def scale(self) -> float:
        """N_c of Kaplan's (N_c / N)^alpha: where the law gives 1."""
        return float(self.coefficient.value ** (-1 / self.exponent.value))


def straight_line(x: Array, y: Array) -> StraightLine:
    """Least squares of logarithms, with Student's intervals.

    Raises DataError for fewer than three points, one value of x, or what is not positive.
    """
    if not (np.isfinite(x) & np.isfinite(y) & (x > 0) & (y > 0)).all():
        raise DataError("a power law is of positive numbers", "take other points out")
    if len(x) < 3 or len(np.unique(x)) < 2:
        raise DataError(f"{len(x)} points of {len(np.unique(x))} values", "give three points, of two values")
    logs, values = np.log(x), np.log(y)
    middle = logs.mean()
    spread = float(((logs - middle) ** 2).sum())
    slope = float(((logs - middle) * values).sum() / spread)
    level = float(values.mean() - slope * middle)
    freedom = len(x) - 2
    variance = float(((values - level - slope * logs) ** 2).sum()) / freedom
    wide = t_quantile(0.975, freedom)
    half = wide * np.sqrt(variance / spread)
    around = wide * np.sqrt(variance * (1 / len(x) + middle**2 / spread))
    ends = (float(np.exp(level + sign * around)) for sign in (0, -1, 1))
    return StraightLine(Estimate(*ends), Estimate(slope, slope - float(half), slope + float(half)))


@dataclass(frozen=True)
class KaplanLaw:
    """L(N, D), equation 1.5."""

    n_c: float
    alpha_n: float
    d_c: float
    alpha_d: float
    value: float
    agreeing: float

    def loss(self, quantities: Array) -> Array:
        size, tokens = np.moveaxis(np.asarray(quantities, dtype=np.float64), -1, 0)
        inner = (self.n_c / size) ** (self.alpha_n / self.alpha_d) + self.d_c / tokens
        result: Array = inner**self.alpha_d
        return result


def fit_kaplan(points: Points, objective: Objective = "huber", delta: float = DELTA) -> KaplanLaw:
    """L(N, D) from many starts. Raises DataError as `fit`.

    Searched are p = ln L(N_mid, inf), alpha_N, q = ln L(inf, D_mid), alpha_D:
    ln L = alpha_D ln(e^u + e^v), u = (p - alpha_N n) / alpha_D, v = q / alpha_D - d, centred n and d.
    """
    check(points, ("N", "D"))
    logs = np.log(points.quantities)
    middle = logs.mean(axis=0)
    n, d = (logs - middle).T
    log_losses = np.log(points.losses)

    def function(theta: Array, _: NDArray[np.intp]) -> tuple[Array, Array]:
        p, alpha_n, q, alpha_d = (column[:, None] for column in theta.T)
        safe = np.where(alpha_d > 0, alpha_d, np.nan)
        u, v = (p - alpha_n * n) / safe, q / safe - d
        total = np.logaddexp(u, v)
        share = np.exp(u - total)
        value, slope = penalty(safe * total, log_losses, objective, delta)
        by_alpha_d = total - share * u - (1 - share) * (q / safe)
        parts = (share, -share * n, 1 - share, by_alpha_d)
        return value.sum(axis=1), np.stack([(slope * part).sum(axis=1) for part in parts], axis=1)

    level = float(np.median(log_losses))
    starts = np.array(
        [
            [level - near, a, level - (1 - near), b]
            for near in (0.1, 0.5, 0.9)
            for a in (0.05, 0.1, 0.3)
            for b in (0.05, 0.1, 0.3)
        ]
    )
    with np.errstate(invalid="ignore", over="ignore"):
        found = minimise(function, starts)
    best = int(np.argmin(found.values))
    p, alpha_n, q, alpha_d = found.points[best]
    value = float(found.values[best])
    agreeing = float((found.values <= value * (1 + 1e-4) + 1e-15).mean())
    n_c, d_c = np.exp(middle[0] + p / alpha_n), np.exp(middle[1] + q / alpha_d)
    return KaplanLaw(float(n_c), float(alpha_n), float(d_c), float(alpha_d), value, agreeing)


@dataclass(frozen=True)
class OverTraining:
    """Gadre's law: the loss at M tokens per parameter for compute C, and the law in N and D that it is."""

    asymptote: float
    a: float
    b: float
    eta: float
    law: Law

    def loss(self, compute: Array, multiplier: Array) -> Array:
        shape: Array = self.a * multiplier**self.eta + self.b * multiplier**-self.eta
        result: Array = self.asymptote + shape * compute**-self.eta
        return result


def fit_over_training(points: Points, objective: Objective = "huber", delta: float = DELTA) -> OverTraining:
    """Hoffmann's law with one exponent, 2 eta: N^2 = C/(6M), D^2 = CM/6. Raises DataError as `fit`."""
    check(points, ("N", "D"))
    starts = default_starts(points)
    starts = starts[starts[:, 2] == starts[:, 4]]
    found = optima(points, starts, objective=objective, delta=delta, is_tied=True)
    law = Law(("N", "D"), found.points[int(np.argmin(found.values))])
    eta = float(law.exponents[0] / 2)
    a, b = law.amplitudes * FLOPS_PER_PARAMETER_AND_TOKEN**eta
    return OverTraining(law.asymptote, float(a), float(b), eta, law)


@dataclass(frozen=True)
class ErrorLaw:
    """Downstream error of a loss: epsilon - k exp(-gamma L)."""

    epsilon: float
    k: float
    gamma: float

    def error(self, losses: Array) -> Array:
        result: Array = self.epsilon - self.k * np.exp(-self.gamma * losses)
        return result


def fit_error(losses: Array, errors: Array) -> ErrorLaw:
    """Least squares, epsilon and k by projection for each of many gammas, then refined.

    Raises DataError for fewer than four losses, or what is no loss or no error.
    """
    if not ((losses > 0) & (losses < LARGEST_LOSS) & (errors >= 0) & np.isfinite(errors)).all():
        raise DataError("losses are above 0, in nats, and errors not below 0", "take other points out")
    if len(np.unique(losses)) < 4:
        raise DataError(
            f"{len(losses)} points cannot determine 3 parameters",
            "give four runs or more, of different losses",
        )

    def solved(gamma: float) -> tuple[float, Array]:
        design = np.stack([np.ones_like(losses), -np.exp(-gamma * (losses - losses.mean()))], axis=1)
        solution = np.linalg.lstsq(design, errors, rcond=None)[0]
        return float(((design @ solution - errors) ** 2).sum()), solution

    grid = np.geomspace(*GAMMAS, 400)
    for _ in range(4):
        best = int(np.argmin([solved(gamma)[0] for gamma in grid]))
        grid = np.linspace(grid[max(0, best - 1)], grid[min(len(grid) - 1, best + 1)], 41)
    gamma = float(grid[int(np.argmin([solved(gamma)[0] for gamma in grid]))])
    epsilon, k = solved(gamma)[1]
    return ErrorLaw(float(epsilon), float(k * np.exp(gamma * losses.mean())), gamma)


@dataclass(frozen=True)
class CriticalBatch:
    """Steps to one loss by batch size: at B = B_crit twice the fewest steps, and twice the fewest samples."""

    steps_min: float
    batch_crit: float

    def steps(self, batch: float) -> float:
        return self.steps_min * (1 + self.batch_crit / batch)


def fit_critical_batch(batches: Array, steps: Array) -> CriticalBatch:
    """From runs to the same loss, one for each batch size: S = S_min + S_min B_crit / B, relative errors.

    Raises DataError for fewer than four runs, or two batch sizes.
    """
    runs = Points(np.asarray(batches, dtype=np.float64)[:, None], np.asarray(steps, dtype=np.float64))
    check(runs, ("B",))
    starts = default_starts(runs)
    centre = float(np.log(runs.quantities).mean())
    starts[:, 1] += (1.0 - starts[:, 2]) * centre
    starts[:, 2] = 1.0
    held = np.array([False, False, True])
    found = optima(runs, starts, objective="squared_log", held=held)
    theta = found.points[int(np.argmin(found.values))]
    return CriticalBatch(float(np.exp(theta[0])), float(np.exp(theta[1] - theta[0])))
