"""Numbers with intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A value with the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def ratio_interval(numerators: Sequence[float], denominators: Sequence[float]) -> Estimate:
    """sum(numerators) / sum(denominators) with a 95 % interval over clusters.

    Each entry is one independent cluster, such as a document: its bits and its bytes. The
    variance is the linearised (delta-method) one of the ratio estimator (Cochran 1977,
    Sampling Techniques, section 6.4). With one cluster the interval is infinite.
    """
    y = np.asarray(numerators, dtype=np.float64)
    x = np.asarray(denominators, dtype=np.float64)
    if len(y) == 0 or x.sum() <= 0:
        raise ValueError("ratio_interval needs at least one cluster with a positive denominator")
    ratio = float(y.sum() / x.sum())
    n = len(y)
    if n == 1:
        return Estimate(ratio, -math.inf, math.inf)
    residual = y - ratio * x
    standard_error = math.sqrt(n / (n - 1) * float(residual @ residual)) / float(x.sum())
    return Estimate(ratio, ratio - 1.96 * standard_error, ratio + 1.96 * standard_error)


def share_interval(successes: float, trials: int) -> Estimate:
    """A share of independent trials with Wilson's 95 % interval (1927), which stays inside [0, 1]."""
    if trials < 1:
        raise ValueError("share_interval needs at least one trial")
    z, share = 1.96, successes / trials
    middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    # Rounding must not put the share outside of its own interval.
    return Estimate(share, min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half)))


def mean_interval(values: Sequence[float]) -> Estimate:
    """The mean of independent values, such as of seeds, with Student's 95 % interval (1908); that of one is
    infinite."""
    if not len(values):
        raise ValueError("mean_interval needs at least one value")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Estimate(mean, -math.inf, math.inf)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    half = student_quantile(len(values) - 1) * math.sqrt(variance / len(values))
    return Estimate(mean, mean - half, mean + half)


def student_quantile(degrees: int, level: float = 0.95) -> float:
    """Within which a variable of Student's t with so many degrees of freedom lies with probability `level`.

    By bisection of its distribution, which is a finite sum (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4).
    """
    if degrees < 1:
        raise ValueError(f"{degrees} degrees of freedom")
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_within(middle, degrees) < level else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def _student_within(angle: float, degrees: int) -> float:
    """P(|t| < sqrt(degrees) tan(angle))."""
    is_odd = degrees % 2
    term = math.cos(angle) if is_odd else 1.0
    total = 0.0
    for number in range(2 + is_odd, degrees + 1, 2):
        total += term
        term *= math.cos(angle) ** 2 * (number - 1) / number
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if is_odd else total
