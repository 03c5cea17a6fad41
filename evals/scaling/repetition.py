"""What data are worth that are seen more than once, and parameters beyond what the data can fill.

Muennighoff et al. 2023 (arXiv:2305.16264, equations 5 and 6): of D tokens, U are unique and seen R + 1 times.
They count as

    D' = U (1 + R* (1 - exp(-R / R*)))         and N' likewise, with U_N the size that U is best spent on,

in L = E + A / N'^alpha + B / D'^beta. Their R* are 15.387756 for data, 5.309743 for parameters.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evals.scaling.fit import DELTA, Fit, Objective, penalty
from evals.scaling.laws import Array, Law
from evals.scaling.optimum import FLOPS_PER_PARAMETER_AND_TOKEN, Optimum, compute_optimal
from seedbed.errors import DataError, UsageError
from seedbed.minimise import Minimum, minimise

FRESH = 1.05
"""Tokens over unique ones up to which a run has not repeated its data."""
RESAMPLES = 500


@dataclass(frozen=True)
class Repetition:
    """After how many repetitions the worth of data, and of parameters in excess, has decayed to 1/e."""

    data: float = 15.387756
    parameters: float = 5.309743


def worth(unique: Array, total: Array, half_life: float | Array) -> Array:
    """U (1 + R* (1 - exp(-R / R*))), which is `total` while it is no more than `unique`."""
    first = np.minimum(unique, total)
    repeats = np.maximum(total / first - 1, 0.0)
    result: Array = first * (1 - half_life * np.expm1(-repeats / half_life))
    return result


def best_size_for(law: Law, tokens: Array) -> Array:
    """U_N: the size that is compute-optimal where `tokens` are."""
    (a, b), (alpha, beta) = law.amplitudes, law.exponents
    ratio = (alpha * a / (beta * b)) ** (1 / (alpha + beta))
    result: Array = ratio * (tokens * ratio) ** (beta / alpha)
    return result


def repeated_loss(law: Law, size: Array, tokens: Array, unique: Array, repetition: Repetition) -> Array:
    """The loss of `size` parameters after `tokens` tokens, of which `unique` differ."""
    data = worth(unique, tokens, repetition.data)
    parameters = worth(best_size_for(law, np.minimum(unique, tokens)), size, repetition.parameters)
    return law.loss(np.stack(np.broadcast_arrays(parameters, data), axis=-1))


@dataclass(frozen=True)
class Repeated:
    """Runs of which some saw their data more than once; arrays [n]."""

    sizes: Array
    tokens: Array
    unique: Array
    losses: Array


def fit_repetition(
    law: Law, runs: Repeated, objective: Objective = "huber", delta: float = DELTA
) -> Repetition:
    """R* of data and of parameters, the law given. Raises DataError where no run repeats its data."""
    if not (runs.tokens > FRESH * runs.unique).any():
        raise DataError(
            "no run sees its data more than once, so nothing is learnt about repetition",
            "give runs of several epochs, with a column U of unique tokens",
        )
    starts = np.log([(n, d) for n in (1.0, 5.0, 25.0) for d in (1.0, 5.0, 25.0, 100.0)])
    found = _search(law, runs, starts, objective, delta)
    parameters, data = np.exp(found.points[int(np.argmin(found.values))])
    return Repetition(float(data), float(parameters))


def _search(
    law: Law,
    runs: Repeated,
    starts: Array,
    objective: Objective,
    delta: float,
    weights: Array | None = None,
) -> Minimum:
    """Where ln R* of parameters and of data, `starts` [S, 2], end; `weights` [S, n] count the runs."""
    first_data = np.minimum(runs.unique, runs.tokens)
    first_size = np.minimum(best_size_for(law, first_data), runs.sizes)
    (a, b), (alpha, beta) = np.log(law.amplitudes), law.exponents
    sides = ((first_size, runs.sizes, a, alpha), (first_data, runs.tokens, b, beta))

    def function(theta: Array, rows: NDArray[np.intp]) -> tuple[Array, Array]:
        rates = np.exp(np.clip(theta, -20, 20))
        total_loss, slopes = np.full((len(theta), 1), law.asymptote), []
        for rate, (first, total, level, power) in zip(rates.T[:, :, None], sides, strict=True):
            repeats = np.maximum(total / first - 1, 0.0)
            decay = np.exp(-repeats / rate)
            counted = first * (1 + rate * (1 - decay))
            term = np.exp(level - power * np.log(counted))
            total_loss = total_loss + term
            slopes.append(-power * term / counted * first * (rate * (1 - decay) - repeats * decay))
        value, slope = penalty(np.log(total_loss), np.log(runs.losses), objective, delta)
        if weights is not None:
            value, slope = value * weights[rows], slope * weights[rows]
        gradient = [(slope / total_loss * one).sum(axis=1) for one in slopes]
        return value.sum(axis=1), np.stack(gradient, axis=1)

    return minimise(function, starts)


@dataclass(frozen=True)
class Worth:
    """What runs that repeat their data say of repetition, with 95 % intervals by bootstrap of these runs."""

    repetition: Repetition
    data_interval: tuple[float, float]
    parameters_interval: tuple[float, float]
    num_runs: int

    def record(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "data": self.repetition.data,
            "parameters": self.repetition.parameters,
            "data_interval": list(self.data_interval),
            "parameters_interval": list(self.parameters_interval),
            "runs": self.num_runs,
        }


def worth_of_repetition(found: Fit, runs: Repeated, num: int = RESAMPLES, seed: int = 0) -> Worth:
    """Errors: see `fit_repetition`."""
    best = fit_repetition(found.law, runs, found.objective, found.delta)
    num_runs = len(runs.losses)
    draw = np.random.default_rng(seed)
    counts = draw.multinomial(num_runs, np.full(num_runs, 1 / num_runs), size=num).astype(np.float64)
    begin = np.log([best.parameters, best.data])
    ends = [
        _search(found.law, runs, np.tile(start, (num, 1)), found.objective, found.delta, counts)
        for start in (begin, begin + np.array([0.5, -0.5]))
    ]
    better = ends[1].values < ends[0].values
    again = np.exp(np.where(better[:, None], ends[1].points, ends[0].points))[:, ::-1]
    low, high = np.percentile(again, (2.5, 97.5), axis=0)
    return Worth(best, (float(low[0]), float(high[0])), (float(low[1]), float(high[1])), num_runs)


def data_constrained_optimal(
    law: Law,
    compute: float,
    unique: float,
    repetition: Repetition | None = None,
    *,
    most_epochs: float = np.inf,
    per: float = FLOPS_PER_PARAMETER_AND_TOKEN,
) -> Optimum:
    """N and D of the least loss for `compute` FLOP when there are but `unique` tokens.

    Raises UsageError when there is no data at all.
    """
    if not unique > 0:
        raise UsageError(f"{unique:g} unique tokens are no data", "such as --unique 1e11")
    tokens = compute_optimal(law, compute, per).tokens * np.geomspace(1e-4, 1e2, 24001)
    tokens = np.unique(np.minimum(tokens, most_epochs * unique))
    sizes = compute / per / tokens
    losses = repeated_loss(law, sizes, tokens, np.full_like(tokens, unique), repetition or Repetition())
    best = int(np.argmin(losses))
    return Optimum(compute, float(sizes[best]), float(tokens[best]), float(losses[best]))
