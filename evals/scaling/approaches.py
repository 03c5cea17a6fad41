"""Hoffmann et al. 2022 (arXiv:2203.15556), approaches 1 and 2: how the best size grows with the budget,
without a form for the loss.

Approach 1 keeps the runs that no cheaper run beats (the envelope). Approach 2 fits a parabola in ln N to the
runs of each budget and takes its lowest point. Both then draw a line through ln N over ln C. Approach 2 is
biased even without noise: a loss that falls at one rate and rises at another is no parabola, and the more of
it a grid sees, and the further off-centre, the further the vertex lies from the minimum (Czech et al. 2026,
arXiv:2603.22339). Approach 3, the fit of a form (fit.py), is not.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evals.scaling.laws import Array, Points
from evals.scaling.optimum import FLOPS_PER_PARAMETER_AND_TOKEN
from seedbed.errors import DataError

SAME_BUDGET = 1.1
"""Ratio of compute from one run to the next, in order, up to which they belong to one budget."""
LEAST_RUNS = 3
"""Of a budget, for a parabola."""


@dataclass(frozen=True)
class PowerLaw:
    """y = coefficient x^exponent, a straight line of logarithms."""

    coefficient: float
    exponent: float

    def __call__(self, x: float) -> float:
        return float(self.coefficient * np.float64(x) ** self.exponent)


@dataclass(frozen=True)
class Parabola:
    """ln L, or L, of one budget over ln N, with its lowest point."""

    compute: float
    sizes: Array
    losses: Array
    coefficients: Array
    """Of (ln N)^2, ln N and 1."""

    @property
    def best_size(self) -> float:
        return float(np.exp(-self.coefficients[1] / (2 * self.coefficients[0])))

    @property
    def is_inside(self) -> bool:
        """Whether the vertex lies among the sizes: beyond them it is extrapolated."""
        return bool(self.sizes.min() <= self.best_size <= self.sizes.max())


@dataclass(frozen=True)
class Allocation:
    """How the best size and tokens grow: N = size(C), and D with what is left of the exponent."""

    size: PowerLaw
    interval: tuple[float, float]
    """95 % of the exponent, by bootstrap of the runs."""
    parabolas: tuple[Parabola, ...] = ()
    frontier: tuple[int, ...] = ()
    """Points of the envelope, for approach 1."""


def power_law(x: Array, y: Array) -> PowerLaw:
    """Least squares of logarithms. Raises DataError for fewer than two values of x."""
    if len(np.unique(x)) < 2:
        raise DataError("a power law needs two values at least", "add runs of another budget")
    exponent, constant = np.polyfit(np.log(x), np.log(y), 1)
    return PowerLaw(float(np.exp(constant)), float(exponent))


def compute_of(points: Points) -> Array:
    """[n] C = 6 N D."""
    product: Array = FLOPS_PER_PARAMETER_AND_TOKEN * points.quantities.prod(axis=1)
    return product


def budgets_of(compute: Array, ratio: float = SAME_BUDGET) -> list[NDArray[np.intp]]:
    """Which points belong to each budget: neighbours in compute are at most `ratio` apart."""
    order = np.argsort(compute, kind="stable")
    jumps = np.flatnonzero(np.diff(np.log(compute[order])) > np.log(ratio)) + 1
    return [np.sort(part) for part in np.split(order, jumps)]


def envelope(points: Points, bins_per_decade: int = 4) -> NDArray[np.intp]:
    """The runs of least loss among those of about their compute, that no cheaper run beats."""
    compute = compute_of(points)
    numbers = np.floor(np.log10(compute) * bins_per_decade).astype(np.intp)
    lowest = [
        members[np.argmin(points.losses[members])]
        for members in (np.flatnonzero(numbers == number) for number in np.unique(numbers))
    ]
    ordered = np.array(sorted(lowest, key=lambda i: compute[i]), dtype=np.intp)
    before = np.minimum.accumulate(np.concatenate([[np.inf], points.losses[ordered][:-1]]))
    return ordered[points.losses[ordered] < before]


def by_envelope(points: Points, num: int = 500, seed: int = 0) -> Allocation:
    """Approach 1. Raises DataError when the envelope has fewer than two runs."""
    compute, frontier = compute_of(points), envelope(points)
    law = power_law(compute[frontier], points.quantities[frontier, 0])
    draw = np.random.default_rng(seed)
    exponents = []
    for _ in range(num):
        drawn = points.take(draw.integers(0, len(points), len(points)))
        chosen = envelope(drawn)
        if len(np.unique(compute_of(drawn)[chosen])) >= 2:
            exponents.append(power_law(compute_of(drawn)[chosen], drawn.quantities[chosen, 0]).exponent)
    return Allocation(law, _percentiles(exponents), frontier=tuple(int(i) for i in frontier))


def parabola(compute: float, sizes: Array, losses: Array) -> Parabola | None:
    """Of the runs of one budget; None for too few sizes, or one that opens downwards."""
    if len(np.unique(sizes)) < LEAST_RUNS:
        return None
    centre = np.log(sizes).mean()
    a, b, c = np.polyfit(np.log(sizes) - centre, losses, 2)
    if a <= 0:
        return None
    return Parabola(compute, sizes, losses, np.array([a, b - 2 * a * centre, c - b * centre + a * centre**2]))


def by_isoflops(points: Points, num: int = 500, seed: int = 0, ratio: float = SAME_BUDGET) -> Allocation:
    """Approach 2, bootstrapped within budgets. Raises DataError unless two budgets have a parabola."""
    compute = compute_of(points)
    groups = budgets_of(compute, ratio)
    found = [one for one in (_of_group(points, compute, group) for group in groups) if one]
    if len(found) < 2:
        raise DataError(
            f"approach 2 needs two budgets with a lowest size, and {len(found)} of {len(groups)} have one",
            f"give runs of at least {LEAST_RUNS} sizes for each of several budgets",
        )
    law = power_law(np.array([one.compute for one in found]), np.array([one.best_size for one in found]))
    draw = np.random.default_rng(seed)
    exponents = []
    for _ in range(num):
        again = [_of_group(points, compute, draw.choice(group, len(group))) for group in groups]
        inside = [one for one in again if one and one.is_inside]
        if len(inside) >= 2:
            x, y = (
                np.array(values) for values in zip(*((p.compute, p.best_size) for p in inside), strict=True)
            )
            exponents.append(power_law(x, y).exponent)
    return Allocation(law, _percentiles(exponents), parabolas=tuple(found))


def _of_group(points: Points, compute: Array, group: NDArray[np.intp]) -> Parabola | None:
    middle = float(np.exp(np.log(compute[group]).mean()))
    return parabola(middle, points.quantities[group, 0], points.losses[group])


def _percentiles(values: list[float]) -> tuple[float, float]:
    if not values:
        return (-np.inf, np.inf)
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)
