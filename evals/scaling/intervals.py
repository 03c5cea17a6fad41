"""How far a fitted law can be trusted: bootstraps over the points, many at once."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from evals.scaling.fit import Fit, refit
from evals.scaling.laws import Array, Law, Points


@dataclass(frozen=True)
class Bootstrap:
    """Fits to points that were drawn again with replacement."""

    names: tuple[str, ...]
    thetas: Array
    """[B, P]"""

    def interval(self, of: Callable[[Law], float], level: float = 0.95) -> tuple[float, float]:
        """Percentiles of a number that follows from the law."""
        values = np.array([of(Law(self.names, theta)) for theta in self.thetas])
        # Between infinite ones there is no mean.
        method = "linear" if np.isfinite(values).all() else "inverted_cdf"
        low, high = np.percentile(values, (50 - 50 * level, 50 + 50 * level), method=method)  # type: ignore[call-overload]
        return float(low), float(high)

    def standard_error(self, of: Callable[[Law], float]) -> float:
        """The deviation of a number that follows from the law."""
        return float(np.std([of(Law(self.names, theta)) for theta in self.thetas], ddof=1))


def bootstrap(points: Points, found: Fit, num: int = 1000, *, seed: int = 0) -> Bootstrap:
    """Fit `num` resamples, each from the optimum of all points and from one beside it; the better counts."""
    draw = np.random.default_rng(seed)
    counts = draw.multinomial(len(points), np.full(len(points), 1 / len(points)), size=num).astype(np.float64)
    theta = found.law.theta
    beside = theta.copy()
    # Along the valley in which amplitudes and exponents trade: a different way down.
    middle = np.log(points.quantities).mean(axis=0)
    beside[2::2] *= 1.15
    beside[1::2] += 0.15 / 1.15 * beside[2::2] * middle
    if not found.has_given_asymptote:
        # From an asymptote that went to 0 no resample would come back.
        beside[0] = max(beside[0], np.log(0.3 * points.losses.min()))
    ends = [refit(points, found, np.tile(start, (num, 1)), weights=counts) for start in (theta, beside)]
    better = ends[1].values < ends[0].values
    return Bootstrap(found.law.names, np.where(better[:, None], ends[1].points, ends[0].points))
