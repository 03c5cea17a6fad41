"""Whether sigmoid(difference of rewards) is the probability that raters prefer an answer, and what makes it
so.

Guo et al. 2017, "On calibration of modern neural networks": the expected calibration error compares
confidence with accuracy in bins, and one temperature, fitted by likelihood on held-out pairs, removes most of
it.

Shapes: N pairs; a difference is that of the preferred answer's reward and the other's.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seedbed import calibration

# Beyond these the likelihood has no maximum: all pairs are in one order.
MIN_SCALE, MAX_SCALE = 1e-4, 1e4


def expected_calibration_error(differences_N: NDArray[np.float64], temperature: float = 1.0) -> float:
    """Mean distance of accuracy from confidence in the better answer, over ten bins of [1/2, 1]; nan without
    pairs.

    A tie has confidence 1/2 and is half right.
    """
    return calibration.expected_calibration_error(*_judged(differences_N, temperature), lowest=0.5)


class Reliability(NamedTuple):
    """One bin of a reliability diagram: means over the pairs in it."""

    confidence: float
    accuracy: float
    pairs: int


def reliability(differences_N: NDArray[np.float64], temperature: float = 1.0) -> list[Reliability]:
    """The bins that hold pairs, from the least sure on."""
    rows = calibration.reliability(*_judged(differences_N, temperature), lowest=0.5)
    return [Reliability(*row) for row in rows]


def _judged(
    differences_N: NDArray[np.float64], temperature: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Confidence in the better answer, and whether that is right."""
    right_N = (differences_N > 0) + 0.5 * (differences_N == 0)
    return _sigmoid(np.abs(differences_N) / temperature), right_N


def fitted_temperature(differences_N: NDArray[np.float64]) -> float:
    """tau that makes the pairs likeliest under sigmoid(difference / tau); the log-likelihood is concave in
    1/tau.

    Pairs that are all in the right order ask for tau = 0 and get 1e-4; all in the wrong one, infinity: 1e4.
    """
    low, high = math.log(MIN_SCALE), math.log(MAX_SCALE)
    if not (differences_N < 0).any():
        return 1 / MAX_SCALE
    if not (differences_N > 0).any() or _slope(differences_N, MIN_SCALE) < 0:
        return 1 / MIN_SCALE
    for _ in range(100):
        middle = (low + high) / 2
        if _slope(differences_N, math.exp(middle)) > 0:
            low = middle
        else:
            high = middle
    return math.exp(-(low + high) / 2)


def is_at_an_end(temperature: float) -> bool:
    """Whether it is one of those that stand for 0 and infinity."""
    return temperature in (1 / MAX_SCALE, 1 / MIN_SCALE)


def _slope(differences_N: NDArray[np.float64], scale: float) -> float:
    """Of the log-likelihood in the scale 1/tau."""
    return float((differences_N * _sigmoid(-scale * differences_N)).sum())


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.5 * (1 + np.tanh(x / 2))
