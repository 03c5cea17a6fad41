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
