"""Numbers with intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A value with the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


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
    half = t_quantile(0.975, len(values) - 1) * math.sqrt(variance / len(values))
    return Estimate(mean, mean - half, mean + half)


def t_tail(t: float, freedom: float) -> float:
    """P(|T| > |t|) of Student's distribution: the p-value of both sides."""
    if freedom <= 0:
        raise ValueError(f"Student's distribution needs degrees of freedom above 0, not {freedom}")
    if math.isinf(t):
        return 0.0
    return (
        _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))
        if math.isfinite(freedom)
        else (math.erfc(abs(t) / math.sqrt(2)))
    )


def t_quantile(share: float, freedom: float) -> float:
    """The value that Student's T stays below with probability `share`, in (0, 1)."""
    if not 0 < share < 1:
        raise ValueError(f"a quantile of a share in (0, 1) is asked for, not of {share}")
    if share == 0.5:
        return 0.0
    both_tails, t = 2 * min(share, 1 - share), 0.0
    # The tail is convex in t > 0, so that Newton's steps from 0 never go too far.
    for _ in range(200):
        step = (t_tail(t, freedom) - both_tails) / (2 * _t_density(t, freedom))
        t += step
        if abs(step) <= 1e-12 * t:
            break
    return math.copysign(t, share - 0.5)


def _t_density(t: float, freedom: float) -> float:
    if not math.isfinite(freedom):
        return math.exp(-t * t / 2) / math.sqrt(2 * math.pi)
    front = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(freedom * math.pi) / 2
    return math.exp(front - (freedom + 1) / 2 * math.log1p(t * t / freedom))


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function, as a continued fraction (DLMF 8.17.22), by Lentz's method."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, 1 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    tiny = 1e-300
    upper, lower = 1.0, 1 / _away_from_zero(1 - (a + b) * x / (a + 1), tiny)
    fraction = lower
    for m in range(1, 1000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            upper = _away_from_zero(1 + term / upper, tiny)
            lower = 1 / _away_from_zero(1 + term * lower, tiny)
            fraction *= upper * lower
        if abs(upper * lower - 1) < 1e-15:
            break
    return math.exp(log_front) * fraction / a


def _away_from_zero(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny


def share_at_least(successes: int, trials: int, error: float) -> float:
    """A share that is exceeded with confidence 1 - error (Clopper and Pearson 1934, one side)."""
    if successes == 0:
        return 0.0
    low, high = 0.0, 1.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        # P(at least so many successes) at a share of `middle`.
        is_rare = _incomplete_beta(successes, trials - successes + 1, middle) < error
        low, high = (middle, high) if is_rare else (low, middle)
    return low
