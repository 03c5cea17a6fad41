"""The laws of over-optimisation: found again where they were put, with intervals that hold, doubts said."""

import math

import numpy as np
import pytest

from evals.scaling.overoptimisation import Curve, fit_curve, measure
from seedbed.errors import DataError
from seedbed.statistics import mean_interval, t_quantile

ALPHA = {"rl": 1.2, "bon": 1.0}
BETA = {"rl": 0.6, "bon": 0.125}
PEAK = {"rl": math.exp(1.2 / 0.6 - 1), "bon": 1.0 / 0.25}


def law(d, form, alpha, beta, origin=0.5):
    """By its definition, one point at a time."""
    if form == "bon":
        return origin + d * (alpha - beta * d)
    return origin + (d * (alpha - beta * math.log(d)) if d else 0.0)


def runs(form, num_seeds, seed, *, noise=0.05, between=0.0, num=40, far=5.0):
    """(KL, reward, seed) of runs whose alpha differs by `between`."""
    random = np.random.default_rng(seed)
    found = []
    for run in range(num_seeds):
        alpha = ALPHA[form] + between * random.standard_normal()
        for d in np.linspace(0, far, num):
            found.append((d * d, law(d, form, alpha, BETA[form]) + noise * random.standard_normal(), run))
    return np.array(found).T


@pytest.mark.parametrize("form", ["rl", "bon"])
def test_a_law_without_noise_is_found_with_its_peak(form):
    """An advice to stop early would name a place that the reward does not peak at."""
    kl, rewards, _ = runs(form, 1, 0, noise=0.0)
    found = fit_curve(np.sqrt(kl), rewards, form)
    assert (found.origin, found.alpha, found.beta) == pytest.approx((0.5, ALPHA[form], BETA[form]))
    assert found.peak == pytest.approx(PEAK[form])
    around = np.linspace(0.5, 10, 9501)
    assert around[np.argmax([law(d, form, found.alpha, found.beta) for d in around])] == pytest.approx(
        found.peak, abs=2e-3
    )
    assert found.reward(np.array([0.0, 2.0])) == pytest.approx([0.5, law(2.0, form, ALPHA[form], BETA[form])])


@pytest.mark.parametrize("form", ["rl", "bon"])
def test_least_squares_are_those_of_the_normal_equations(form):
    """By Cramer's rule in float64, written out."""
    kl, rewards, _ = runs(form, 1, 3, noise=0.3)
    rows = [(1.0, d, -d * d if form == "bon" else -(d * math.log(d) if d else 0.0)) for d in np.sqrt(kl)]
    squares = [[sum(row[p] * row[q] for row in rows) for q in range(3)] for p in range(3)]
    products = [sum(row[p] * y for row, y in zip(rows, rewards, strict=True)) for p in range(3)]
    whole = np.linalg.det(squares)
    expected = []
    for place in range(3):
        changed = [[products[p] if q == place else squares[p][q] for q in range(3)] for p in range(3)]
        expected.append(np.linalg.det(changed) / whole)
    found = fit_curve(np.sqrt(kl), rewards, form)
    assert (found.origin, found.alpha, found.beta) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("form", "num_seeds", "between", "num"),
    [("rl", 1, 0.0, 200), ("bon", 1, 0.0, 200), ("rl", 5, 0.15, 600), ("bon", 4, 0.15, 600)],
)
def test_intervals_hold_the_truth_as_often_as_they_say(form, num_seeds, between, num):
    """Five seeds of forty iterations are not two hundred points: what a seed shares is no evidence."""
    held = {"alpha": 0, "beta": 0, "peak": 0}
    for seed in range(num):
        found = measure(*runs(form, num_seeds, 1000 + seed, between=between), form=form, num=400)
        for name, true in (("alpha", ALPHA[form]), ("beta", BETA[form]), ("peak", PEAK[form])):
            estimate = getattr(found, name)
            held[name] += estimate.low <= true <= estimate.high
    shares = {name: count / num for name, count in held.items()}
    print(form, num_seeds, shares)
    # Of 95 %, less three deviations of what is counted; an interval that holds everything says nothing.
    assert all(0.95 - 3 * math.sqrt(0.95 * 0.05 / num) <= share < 1 for share in shares.values()), shares


def told(kl, rewards, seeds=None):
    return " | ".join(measure(kl, rewards, seeds, num=300).warnings)


def test_what_the_points_do_not_determine_is_said():
    """A fit gives a peak for any points; a reader would go by it."""
    kl, rewards, ids = runs("rl", 4, 0)
    assert told(kl, rewards, ids) == ""
    assert "intervals say nothing of how another seed" in told(*runs("rl", 1, 0)[:2])
    near, early, _ = runs("rl", 1, 0, far=0.3, noise=0.3)
    assert "no further than d = 0.3" in told(near, early)
    assert "where the reward peaks is not determined" in told(near, early) or "does not turn" in told(
        near, early
    )
    before, rising, _ = runs("rl", 1, 0, far=2.0, noise=0.01)
    assert "lies beyond the points, which end at d = 2" in told(before, rising)
    straight = np.linspace(0, 5, 30)
    # Rising faster and faster, as no over-optimised reward does.
    assert "does not turn" in told(straight**2, 0.1 * straight**2)
    assert "below 0 in 1 point" in told(np.array([-0.01, *kl[1:]]), rewards, ids)
    assert "8 points are few" in told(*runs("rl", 1, 0, num=8)[:2])


def test_points_that_cannot_determine_a_law_are_refused():
    with pytest.raises(DataError, match="5 points at 2 distances cannot determine the 3 parameters"):
        measure([0, 0, 1, 1, 1], [1.0, 2.0, 3.0, 4.0, 5.0])
    with pytest.raises(DataError, match="the reward is no number in 1 of 5 points"):
        measure([0, 1, 2, 3, 4], [1.0, math.nan, 3.0, 4.0, 5.0])


def test_a_law_that_does_not_turn_has_no_peak():
    assert Curve("rl", 0.0, 1.0, 0.0).peak == math.inf
    assert Curve("bon", 0.0, 1.0, -1.0).peak == math.inf
    # Falling from the start.
    assert Curve("bon", 0.0, -1.0, 1.0).peak == 0


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    [(1, 12.7062), (2, 4.30265), (4, 2.77645), (5, 2.57058), (29, 2.04523), (1000, 1.96234)],
)
def test_students_quantiles_are_those_of_the_tables(degrees, quantile):
    """Intervals over five seeds would be a third too narrow by the normal's."""
    assert t_quantile(0.975, degrees) == pytest.approx(quantile, abs=1e-5)


def test_the_interval_of_a_mean():
    found = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.77645 * math.sqrt(2.5 / 5)
    assert (found.value, found.low, found.high) == pytest.approx((3, 3 - half, 3 + half), abs=1e-4)
    assert mean_interval([7.0]).high == math.inf
