"""Fits of scaling laws: the published numbers, from the published points, and what is refused."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from evals.scaling.fit import fit
from evals.scaling.intervals import bootstrap
from evals.scaling.laws import Law, Points
from evals.scaling.optimum import compute_optimal, serving_optimal, size_exponent
from evals.scaling.variable_projection import fit_projected
from seedbed.errors import DataError
from tests.conftest import ROOT

FIGURE = Path(os.environ.get("SEEDBED_SCALING_DATA", ROOT.parent / "shared" / "scaling"))


@pytest.fixture(scope="module")
def figure():
    """The points of figure 4 of Hoffmann et al., as Besiroglu et al. read them: (points, compute)."""
    path = FIGURE / "epoch_chinchilla_svg_extracted_data.csv"
    if not path.exists():
        pytest.skip("the points are not ours to ship: name their folder in $SEEDBED_SCALING_DATA")
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    size, compute, loss = (
        np.array([float(row[name]) for row in rows]) for name in ("Model Size", "Training FLOP", "loss")
    )
    kept = np.argsort(loss)[:-5]
    return Points(np.stack([size, compute / size / 6], axis=1)[kept], loss[kept]), compute[kept]


def test_the_published_optimum_is_found(figure):
    """Besiroglu et al. 2024: the objective to nine digits, and what follows from it."""
    points, _ = figure
    found = fit(points)
    (a, b), (alpha, beta) = found.law.amplitudes, found.law.exponents
    assert len(points) == 240
    assert found.value <= 0.00101827403
    assert (round(a, 1), round(found.law.asymptote, 4), round(alpha, 4), round(beta, 4)) == (
        477.8, 1.8172, 0.3473, 0.3672,
    )  # fmt: skip
    assert b == pytest.approx(2143, abs=1)
    best = compute_optimal(found.law, 5.76e23)
    assert best.parameters == pytest.approx(73.2e9, rel=0.01)
    assert best.tokens_per_parameter == pytest.approx(17.9, abs=0.1)
    assert 0.3 < found.agreeing <= 1


def test_intervals_are_the_published_ones(figure):
    points, _ = figure
    drawn = bootstrap(points, fit(points))
    published = {
        "A": (285.214, 743.626), "E": (1.769, 1.871), "alpha": (0.317, 0.373), "beta": (0.331, 0.415),
    }  # fmt: skip
    found = {
        "A": drawn.interval(lambda law: law.amplitudes[0]),
        "E": drawn.interval(lambda law: law.asymptote),
        "alpha": drawn.interval(lambda law: law.exponents[0]),
        "beta": drawn.interval(lambda law: law.exponents[1]),
    }
    for name, ends in published.items():
        assert found[name] == pytest.approx(ends, rel=0.05), name


def test_variable_projection_gives_the_published_least_squares(figure):
    points, compute = figure
    below = points.take(compute < 1e21)
    in_units = Points(below.quantities / [1e6, 1e9], below.losses)
    found = fit_projected(in_units)
    assert len(below) == 217
    assert found.value == pytest.approx(0.06241429, abs=5e-9)
    assert found.law.theta == pytest.approx(
        [np.log(1.90509226), np.log(4.00052223), 0.35105819, np.log(1.05094769), 0.45874179], abs=1e-6
    )
    # The same optimum by another way.
    assert fit(in_units, objective="squared").value == pytest.approx(found.value, rel=1e-9)


def test_a_mean_and_one_start_stop_where_the_published_error_did(figure):
    """The trap: with a mean over points and default tolerances an optimizer is content after two steps."""
    optimize = pytest.importorskip("scipy.optimize")
    from evals.scaling.laws import log_loss

    points, _ = figure
    logs, log_losses = np.log(points.quantities), np.log(points.losses)

    def mean(theta):
        predicted, gradient = log_loss(theta[None], logs)
        residual = predicted[0] - log_losses
        inside = np.abs(residual) <= 1e-3
        value = np.where(inside, residual**2 / 2, 1e-3 * (np.abs(residual) - 5e-4)).mean()
        slope = np.where(inside, residual, 1e-3 * np.sign(residual)) / len(points)
        return value, slope @ gradient[0]

    hoffmann = np.array([0.5267228, 6.0073404, 0.33917084, 6.0179186, 0.2849083])
    trapped = optimize.minimize(mean, hoffmann, jac=True, method="L-BFGS-B")
    assert trapped.nit <= 3
    assert np.exp(trapped.x[1]) == pytest.approx(406.4, abs=0.1)
    assert trapped.fun * len(points) > 1.1 * fit(points).value


def synthetic(seed, noise=0.01, num=60):
    draw = np.random.default_rng(seed)
    law = Law(("N", "D"), np.array([np.log(1.7), np.log(400.0), 0.34, np.log(1500.0), 0.35]))
    quantities = np.stack([10 ** draw.uniform(7, 10, num), 10 ** draw.uniform(9, 11.5, num)], axis=1)
    return law, Points(quantities, law.loss(quantities) * np.exp(noise * draw.standard_normal(num)))


def test_a_law_without_noise_is_found_exactly():
    law, points = synthetic(0, noise=0)
    for found in (fit(points), fit_projected(points)):
        assert found.law.theta == pytest.approx(law.theta, abs=1e-4)


def test_the_optimum_of_a_budget_is_where_its_loss_is_least():
    """Advice would be off by a factor: along C = 6 N D no other size may do better."""
    law, _ = synthetic(0)
    best = compute_optimal(law, 1e21)
    sizes = best.parameters * np.geomspace(0.5, 2, 401)
    losses = law.loss(np.stack([sizes, 1e21 / 6 / sizes], axis=1))
    assert sizes[np.argmin(losses)] == pytest.approx(best.parameters, rel=0.01)
    assert 6 * best.parameters * best.tokens == pytest.approx(1e21)
    assert size_exponent(law) == pytest.approx(0.35 / 0.69)
    # Who serves many tokens trains a smaller model for longer, at the same loss.
    serving = serving_optimal(law, 1e21, 1e13)
    assert serving.parameters < 0.8 * best.parameters
    assert serving.loss == pytest.approx(best.loss)
    assert serving_optimal(law, 1e21, 0).parameters == pytest.approx(best.parameters, rel=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda q, y: (q, np.where(np.arange(len(y)) == 3, np.nan, y)),
            "loss is not a positive number in 1 of 60",
        ),
        (
            lambda q, y: (q * [1, -1], y),
            "D is not a positive number in 60 of 60 points, the first of them point 1",
        ),
        (lambda q, y: (q[:5], y[:5]), "5 points cannot determine the 5 parameters"),
        (lambda q, y: (q * [0, 1] + [7, 0], y), "all points have the same N"),
    ],
)
def test_points_that_determine_nothing_are_refused_by_name(change, message):
    _, points = synthetic(0)
    with pytest.raises(DataError, match=message):
        fit(Points(*change(points.quantities, points.losses)))
