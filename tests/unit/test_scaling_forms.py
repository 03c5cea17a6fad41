"""Laws other than Hoffmann's, from data that follow them: published constants go in, and must come out."""

import numpy as np
import pytest

from evals.scaling.caveats import repetition_warnings
from evals.scaling.forms import (
    KaplanLaw,
    OverTraining,
    fit_critical_batch,
    fit_error,
    fit_kaplan,
    fit_over_training,
    straight_line,
)
from evals.scaling.laws import Law, Points
from evals.scaling.optimum import compute_optimal
from evals.scaling.repetition import (
    Repeated,
    Repetition,
    Worth,
    best_size_for,
    data_constrained_optimal,
    fit_repetition,
    repeated_loss,
    worth,
)
from evals.scaling.study import Recipe, study
from seedbed.errors import DataError, UsageError

# Muennighoff et al. 2023, section 5 and appendix: one exponent for both.
REPEATING = Law(("N", "D"), np.array([np.log(1.87), np.log(521.0), 0.353, np.log(1488.0), 0.353]))


def plane(num=60, seed=0):
    draw = np.random.default_rng(seed)
    return np.stack([10 ** draw.uniform(6, 9, num), 10 ** draw.uniform(8, 11, num)], axis=1)


def noise(shape, size, seed=1):
    return np.exp(size * np.random.default_rng(seed).standard_normal(shape))


def test_kaplans_joint_law_is_found():
    """Its four constants (table 2 and section 4) trade against each other along a bent valley."""
    true = KaplanLaw(8.8e13, 0.076, 5.4e13, 0.095, 0.0, 1.0)
    exact = fit_kaplan(Points(plane(), true.loss(plane())))
    assert (exact.n_c, exact.alpha_n, exact.d_c, exact.alpha_d) == pytest.approx(
        (8.8e13, 0.076, 5.4e13, 0.095), rel=1e-4
    )
    assert exact.agreeing > 0.5
    losses = true.loss(plane()) * noise(60, 0.002)
    noisy = fit_kaplan(Points(plane(), losses))
    assert (noisy.alpha_n, noisy.alpha_d) == pytest.approx((0.076, 0.095), rel=0.05)
    assert np.abs(np.log(noisy.loss(plane()) / losses)).max() < 0.01


def test_kaplans_single_laws_and_batch_laws_are_straight_lines():
    """Intervals of a power law would be those of nothing."""
    x = np.geomspace(1e6, 1e9, 12)
    exact = straight_line(x, (8.8e13 / x) ** 0.076)
    assert exact.scale == pytest.approx(8.8e13, rel=1e-6)
    assert exact.exponent.value == pytest.approx(-0.076)
    covered = 0
    for seed in range(200):
        # Power Lines (2025): the best batch grows as D^0.383.
        found = straight_line(x, 0.02 * x**0.383 * noise(12, 0.1, seed))
        covered += found.exponent.low <= 0.383 <= found.exponent.high
    assert 0.91 <= covered / 200 <= 0.99
    with pytest.raises(DataError, match="2 points of 2 values"):
        straight_line(x[:2], x[:2])
    with pytest.raises(DataError, match="positive"):
        straight_line(x, -x)


def test_the_over_training_law_is_hoffmanns_with_one_exponent():
    """Gadre et al. 2024: a loss by compute and tokens per parameter, the same number as by N and D."""
    size, tokens = plane().T
    compute, multiplier = 6 * size * tokens, tokens / size
    true = OverTraining(1.51, 141.0, 190.0, 0.121, Law(("N", "D"), np.zeros(5)))
    losses = true.loss(compute, multiplier)
    found = fit_over_training(Points(plane(), losses))
    assert (found.asymptote, found.a, found.b, found.eta) == pytest.approx((1.51, 141, 190, 0.121), rel=1e-3)
    assert found.loss(compute, multiplier) == pytest.approx(losses, rel=1e-6)
    assert found.law.exponents[0] == pytest.approx(found.law.exponents[1], rel=1e-12)
    assert found.law.loss(plane()) == pytest.approx(losses, rel=1e-6)


def test_downstream_error_follows_from_loss():
    """Without it a forecast of loss says nothing of what a user will see."""
    losses = np.linspace(2.0, 4.0, 12)
    found = fit_error(losses, 0.9 - 2.1 * np.exp(-0.7 * losses))
    assert (found.epsilon, found.k, found.gamma) == pytest.approx((0.9, 2.1, 0.7), rel=1e-3)
    with pytest.raises(DataError, match="3 points cannot determine 3"):
        fit_error(losses[:3], losses[:3])


def test_the_critical_batch_is_where_steps_and_samples_both_double():
    """A user would pay twice for batches that save no steps."""
    batches = np.array([16.0, 32, 64, 128, 256, 512, 1024])
    found = fit_critical_batch(batches, 1500 * (1 + 90 / batches) * noise(7, 0.01))
    assert (found.steps_min, found.batch_crit) == pytest.approx((1500, 90), rel=0.05)
    assert found.steps(found.batch_crit) == pytest.approx(2 * found.steps_min)
    with pytest.raises(DataError, match="3 points cannot determine"):
        fit_critical_batch(batches[:3], batches[:3])


def test_repeated_data_are_worth_what_was_published():
    """Four epochs cost nearly nothing, and the fortieth is worth nearly nothing: advice would miss both."""
    unique = np.array(1e9)
    published = Repetition()
    assert worth(unique, unique, published.data) == unique
    assert worth(unique, 4 * unique, published.data) / (4 * unique) > 0.9
    # After R* repetitions, each is worth 1 - 1/e on average.
    after = float(worth(unique, (1 + published.data) * unique, published.data) / unique)
    assert after == pytest.approx(1 + published.data * (1 - np.exp(-1)))
    draw = np.random.default_rng(0)
    size, tokens = plane().T
    unique = tokens / draw.choice([1, 2, 4, 10, 40], 60)
    losses = repeated_loss(REPEATING, size, tokens, unique, published) * noise(60, 0.001)
    found = fit_repetition(REPEATING, Repeated(size, tokens, unique, losses))
    assert found.data == pytest.approx(published.data, rel=0.15)
    assert found.parameters == pytest.approx(published.parameters, rel=0.3)
    with pytest.raises(DataError, match="nothing is learnt about repetition"):
        fit_repetition(REPEATING, Repeated(size, tokens, tokens, losses))


def test_runs_that_repeat_their_data_are_a_study_of_their_own(tmp_path):
    """Four epochs would be fitted as four times the data, and bend the law that fresh data follow."""
    draw = np.random.default_rng(3)
    rows = ["N,D,loss,unique_tokens"]
    for size in (1e7, 3e7, 1e8, 3e8, 1e9):
        for tokens in (1e9, 5e9, 2e10, 1e11):
            for epochs in (1, 4, 30):
                unique = tokens / epochs
                numbers = (np.array(number) for number in (size, tokens, unique))
                loss = repeated_loss(REPEATING, *numbers, Repetition()) * np.exp(
                    0.001 * draw.standard_normal()
                )
                rows.append(f"{size},{tokens},{loss},{unique}")
    (tmp_path / "runs.csv").write_text("\n".join(rows))
    done = study(tmp_path / "runs.csv", Recipe(bootstraps=100))
    assert len(done.points) == 20
    assert done.found.law.exponents == pytest.approx(REPEATING.exponents, abs=0.03)
    worth = done.repetition
    assert worth is not None
    assert worth.num_runs == 40
    low, high = worth.data_interval
    assert low < worth.repetition.data < high
    assert worth.repetition.data == pytest.approx(15.4, rel=0.3)
    assert repetition_warnings(worth) == []
    vague = Worth(Repetition(), (1.0, 50.0), (1.0, 2.0), 3)
    assert repetition_warnings(vague) == [
        "R* of data is not determined by 3 runs that repeat their data: its 95 % interval is 1 to 50"
    ]


def test_with_few_data_the_best_model_is_smaller_and_sees_them_again():
    """Advice for unlimited data would be given to who has few, and the other way round."""
    compute = 1e21
    free = compute_optimal(REPEATING, compute)
    plenty = data_constrained_optimal(REPEATING, compute, 1e15)
    assert plenty.parameters == pytest.approx(free.parameters, rel=0.01)
    assert plenty.loss == pytest.approx(free.loss, rel=1e-4)
    few = data_constrained_optimal(REPEATING, compute, free.tokens / 20)
    assert few.tokens > free.tokens
    assert few.parameters < free.parameters
    assert few.loss > free.loss
    capped = data_constrained_optimal(REPEATING, compute, free.tokens / 20, most_epochs=4)
    assert capped.tokens == pytest.approx(free.tokens / 5)
    assert 6 * capped.parameters * capped.tokens == pytest.approx(compute)
    with pytest.raises(UsageError, match="are no data"):
        data_constrained_optimal(REPEATING, compute, 0)
    # U_N is on the compute-optimal line.
    assert best_size_for(REPEATING, np.array(free.tokens)) == pytest.approx(free.parameters, rel=1e-9)
