"""What data are worth that are seen more than once, and parameters beyond what the data can fill.

Muennighoff et al. 2023 (arXiv:2305.16264, equations 5 and 6): of D tokens, U are unique and seen R + 1 times.
They count as

    D' = U (1 + R* (1 - exp(-R / R*)))         and N' likewise, with U_N the size that U is best spent on,

in L = E + A / N'^alpha + B / D'^beta. Their R* are 15.387756 for data, 5.309743 for parameters.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evals.scaling.fit import DELTA, Objective, penalty
from evals.scaling.laws import Array, Law
from evals.scaling.optimum import FLOPS_PER_PARAMETER_AND_TOKEN, Optimum, compute_optimal
from seedbed.errors import DataError, UsageError
from seedbed.minimise import minimise


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
    if not (runs.tokens > 1.5 * runs.unique).any():
        raise DataError(
            "no run sees its data more than one and a half times, so nothing is learnt about repetition",
            "give runs of several epochs, with a column U of unique tokens",
        )
    first_data = np.minimum(runs.unique, runs.tokens)
    first_size = np.minimum(best_size_for(law, first_data), runs.sizes)
    (a, b), (alpha, beta) = np.log(law.amplitudes), law.exponents

    def function(theta: Array, _: NDArray[np.intp]) -> tuple[Array, Array]:
        tau = np.exp(np.clip(theta, -20, 20))
        terms, slopes = [], []
        for k, (first, total) in enumerate(((first_size, runs.sizes), (first_data, runs.tokens))):
            repeats, rate = np.maximum(total / first - 1, 0.0), tau[:, k, None]
            decay = np.exp(-repeats / rate)
            counted = first * (1 + rate * (1 - decay))
            level, power = (a, alpha) if k == 0 else (b, beta)
            terms.append(np.exp(level - power * np.log(counted)))
            slopes.append(-power * terms[k] / counted * first * (rate * (1 - decay) - repeats * decay))
        total_loss = law.asymptote + terms[0] + terms[1]
        value, slope = penalty(np.log(total_loss), np.log(runs.losses), objective, delta)
        gradient = [(slope / total_loss * one).sum(axis=1) for one in slopes]
        return value.sum(axis=1), np.stack(gradient, axis=1)

    starts = np.log([(n, d) for n in (1.0, 5.0, 25.0) for d in (1.0, 5.0, 25.0, 100.0)])
    found = minimise(function, starts)
    parameters, data = np.exp(found.points[int(np.argmin(found.values))])
    return Repetition(float(data), float(parameters))


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
