"""Numbers with intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

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


def student_quantile(probability: float, degrees: float) -> float:
    """Quantile of Student's t (Fisher and Cornish 1960, to the fourth order): five digits from 5 degrees of
    freedom on, and 1 % off at 3."""
    if degrees < 1:
        raise ValueError("student_quantile needs at least one degree of freedom")
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / degrees**power for power, term in enumerate(terms, start=1))
