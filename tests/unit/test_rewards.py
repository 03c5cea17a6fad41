"""Rewards after training: put together, calibrated, normalised; and the checker that stands in for raters."""

import math

import numpy as np
import pytest

from evals.preferences import by_margin, calibration
from seedbed.errors import DataError, UsageError
from seedbed.randomness import generator
from seedbed.statistics import share_interval
from training.rewards.calibration import expected_calibration_error, fitted_temperature, reliability
from training.rewards.comparisons import _row
from training.rewards.ensembles import combine
from training.rewards.normalization import gain_and_bias
from training.rewards.python_checker import check


def test_ensembles_follow_their_definitions():
    """Mean, worst case, and mean - c variance (Coste et al. 2023)."""
    rewards = np.array([[1.0, 4.0, 0.0], [3.0, 4.0, -6.0]])
    assert combine(rewards).tolist() == [2, 4, -3]
    assert combine(rewards, "worst").tolist() == [1, 4, -6]
    assert combine(rewards, "penalised", 0.5).tolist() == [2 - 0.5 * 1, 4, -3 - 0.5 * 9]
    with pytest.raises(UsageError, match="did you mean 'worst'"):
        combine(rewards, "worse")


def test_gain_and_bias_give_mean_zero_and_variance_one():
    rewards = generator(0, "rewards").normal(3, 7, size=500)
    gain, bias = gain_and_bias(rewards)
    assert (gain * rewards + bias).mean() == pytest.approx(0, abs=1e-12)
    assert (gain * rewards + bias).var() == pytest.approx(1)
    for same in (np.full(9, 4.0), np.array([])):
        with pytest.raises(DataError, match="cannot be scaled"):
            gain_and_bias(same)


def raters(scale, count=20_000):
    """Differences of a model whose rewards are `scale` times too far apart for its raters."""
    draws = generator(1, "raters")
    true = draws.normal(0, 1.5, size=count)
    agrees = draws.random(count) < 1 / (1 + np.exp(-true))
    return np.where(agrees, true, -true) * scale


@pytest.mark.parametrize("scale", [0.25, 1.0, 4.0])
def test_the_temperature_is_that_of_the_raters_noise(scale):
    """Overconfident rewards would make a policy pay any price for the last of them."""
    differences = raters(scale)
    assert fitted_temperature(differences) == pytest.approx(scale, rel=0.07)
    before, after = expected_calibration_error(differences), expected_calibration_error(differences, scale)
    assert after < 0.015
    assert scale == 1 or before > 3 * after


def test_reliability_shows_where_a_model_is_too_sure():
    """One number tells that something is wrong, the diagram where."""
    differences = raters(4.0)
    too_sure, right = reliability(differences), reliability(differences, 4.0)
    assert sum(row.pairs for row in too_sure) == sum(row.pairs for row in right) == len(differences)
    assert all(row.accuracy < row.confidence - 0.05 for row in too_sure[2:-1])
    assert all(abs(row.accuracy - row.confidence) < 0.05 for row in right)
    assert [row.confidence for row in right] == sorted(row.confidence for row in right)
    assert reliability(np.array([])) == []


def test_calibration_at_its_limits():
    assert fitted_temperature(np.array([1.0, 2.0])) == 1e-4
    assert fitted_temperature(np.array([-1.0, -2.0])) == 1e4
    assert math.isnan(expected_calibration_error(np.array([])))
    assert expected_calibration_error(np.zeros(5)) == 0
    assert expected_calibration_error(np.full(5, 50.0)) == pytest.approx(0, abs=1e-9)
    assert calibration(np.array([1.0, -1.0]), np.array([0, 1]))["temperature"] is None


def test_accuracy_by_margin_goes_from_unsure_to_sure():
    rows = by_margin(raters(1.0))
    values = [row["value"] for row in rows]
    assert values == sorted(values)
    assert sum(row["pairs"] for row in rows) == 20_000
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows)


def test_wilsons_interval():
    """Known values: 0 of 10 reaches to 27.8 %, 5 of 10 from 23.7 to 76.3 %."""
    assert share_interval(0, 10).high == pytest.approx(0.2775, abs=1e-3)
    half = share_interval(5, 10)
    assert (half.low, half.high) == pytest.approx((0.2366, 0.7634), abs=1e-3)
    assert share_interval(10, 10).high == 1
    with pytest.raises(ValueError, match="one trial"):
        share_interval(0, 0)


PROMPT = 'def scaled(values, factor):\n    """Each value times the factor."""\n'
WRITTEN = "    return [value * factor for value in values]\n"


def test_the_checker_tells_bodies_apart():
    """Comparisons would otherwise be noise, and nothing could be learned of them."""
    good = check(PROMPT, WRITTEN, WRITTEN)
    assert good.score == pytest.approx(4)
    broken = check(PROMPT, "    return [value *\n", WRITTEN)
    assert (broken.parses, broken.uses) == (False, 0)
    idle = check(PROMPT, "    return [value for value in values ]     \n", WRITTEN)
    assert idle.parses
    assert idle.uses == 0.5
    endless = check(PROMPT, WRITTEN * 9, WRITTEN, ended=False)
    assert endless.right_length == 0
    assert check(PROMPT, "x = 1\n", WRITTEN).parses is False
    assert check(PROMPT, "", WRITTEN).score == 0


def test_answers_become_pairs_or_rankings_or_nothing():
    answers = {"a": 3.0, "b": 1.0, "c": 2.0}
    pair = _row("id", "p", answers, "preference")
    assert (pair["chosen"], pair["rejected"]) == ("a", "b")
    assert _row("id", "p", answers, "ranking")["responses"] == ["a", "c", "b"]
    assert _row("id", "p", {"a": 1.0, "b": 1.0}, "preference") is None
    assert _row("id", "p", {"a": 1.0}, "preference") is None
    best = _row("id", "p", {"a": 1.0}, "best")
    assert (best["prompt"], best["response"], best["judged"]) == ("p", "a", 1.0)
    assert _row("id", "p", answers, "best", at_least=3.0)["response"] == "a"
    assert _row("id", "p", answers, "best", at_least=3.1) is None
    assert _row("id", "p", {}, "best") is None
