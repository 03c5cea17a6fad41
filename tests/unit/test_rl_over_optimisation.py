"""Whether gold falls: seldom told of runs that are well, soon of others, and the same after a resume."""

import math

import numpy as np
import pytest

from training.rl.over_optimisation import Iteration, Watch, clustered_error, fall

NUM_HEALTHY, NUM_ITERATIONS = 400, 60


def measured(mean_T, random, *, spread=1.0, correlation=0.0):
    """(gold, its standard errors as 16 prompts know them) around `mean_T`, in units of the true error."""
    noise = random.standard_normal(len(mean_T))
    for place in range(1, len(noise)):
        fresh = math.sqrt(1 - correlation**2) * noise[place]
        noise[place] = correlation * noise[place - 1] + fresh
    return mean_T + spread * noise, np.sqrt(random.chisquare(15, len(mean_T)) / 15)


def told_at(gold_T, error_T, reward_T=None):
    """The first iteration, counted from 0, at which a fall is told of."""
    rising_T = np.arange(len(gold_T), dtype=np.float64) if reward_T is None else reward_T
    for end in range(1, len(gold_T) + 1):
        found = fall(gold_T[:end], error_T[:end], rising_T[:end])
        if found and found.score > found.bound:
            return end - 1
    return None


def rises(num, height):
    return height * (1 - np.exp(-np.arange(num) / 12))


HEALTHY = {
    "flat": (np.zeros(NUM_ITERATIONS), {}),
    "rising": (rises(NUM_ITERATIONS, 6.0), {}),
    "noisier than its answers say": (np.zeros(NUM_ITERATIONS), {"spread": 1.6}),
    "wandering": (np.zeros(NUM_ITERATIONS), {"correlation": 0.3}),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_runs_are_seldom_told_of(name):
    """A run that is well would be stopped. Of the reward no help is taken: it rises throughout."""
    mean_T, noise = HEALTHY[name]
    random = np.random.default_rng(3)
    alarms = [told_at(*measured(mean_T, random, **noise)) for _ in range(NUM_HEALTHY)]
    share = sum(alarm is not None for alarm in alarms) / NUM_HEALTHY
    print(f"{name}: {share:.1%} of {NUM_HEALTHY} runs of {NUM_ITERATIONS} iterations")
    assert share <= 0.05


@pytest.mark.parametrize(("slope", "median", "late"), [(0.1, 34, 48), (0.2, 22, 30), (0.5, 12, 16)])
def test_a_fall_is_told_of_soon_after_the_peak_and_not_before(slope, median, late):
    """`slope` is by how many standard errors of an iteration gold falls at each, from iteration 40 on."""
    random, delays = np.random.default_rng(4), []
    time_T = np.arange(120)
    mean_T = rises(120, 6.0)[np.minimum(time_T, 40)] - slope * np.maximum(time_T - 40, 0)
    for _ in range(100):
        alarm = told_at(*measured(mean_T, random))
        delays.append(math.inf if alarm is None else alarm - 40)
    quantiles = np.quantile(delays, (0.1, 0.5, 0.9), method="inverted_cdf")
    print(
        f"{slope} standard errors an iteration: delays {quantiles} (10 %, median, 90 %), {min(delays)} least"
    )
    assert min(delays) > 0
    assert quantiles[1] <= median
    assert quantiles[2] <= late


def test_gold_that_falls_with_the_reward_is_not_over_optimised():
    """A run that falls apart would be called over-optimised, and be given a higher divergence to pay."""
    gold_T, error_T = measured(np.minimum(np.arange(60), 60 - np.arange(60.0)), np.random.default_rng(0))
    assert told_at(gold_T, error_T) is not None
    assert told_at(gold_T, error_T, reward_T=gold_T) is None


def test_answers_that_say_nothing_of_their_error_are_judged_by_how_gold_varies():
    """One prompt to an iteration has no error between prompts; gold that never varies has none at all."""
    gold_T, _ = measured(np.zeros(60), np.random.default_rng(0))
    assert told_at(gold_T, np.zeros(60)) is None
    falling_T, _ = measured(-0.5 * np.maximum(np.arange(60.0) - 20, 0), np.random.default_rng(0))
    assert 20 < (told_at(falling_T, np.zeros(60)) or 0) < 45
    assert told_at(np.ones(60), np.zeros(60)) is None


def iteration(step, gold, reward=None, **others):
    values = {"gold_error": 1.0, "kl": step / 10, "disagreement": None, "length": 20.0} | others
    return Iteration(step, float(step) if reward is None else reward, gold, **values)


def test_a_watch_says_it_once_and_goes_on_from_what_was_saved():
    """A resumed run would stop elsewhere than one that was not stopped, or be told of the same fall again."""
    mean_T = np.concatenate([rises(25, 6.0), 6.0 - 0.5 * np.arange(40)])
    gold_T, error_T = measured(mean_T, np.random.default_rng(1))
    seen = [
        iteration(10 * n + 1, g, gold_error=e) for n, (g, e) in enumerate(zip(gold_T, error_T, strict=True))
    ]
    whole, resumed, told = Watch(), Watch(), []
    for one in seen:
        again = Watch()
        again.load_state(resumed.state())
        resumed = again
        found = whole.note(one)
        assert resumed.note(one) == found
        told += found
    (only,) = told
    assert only.kind == "over_optimised"
    assert whole.is_over_optimised
    assert resumed.is_over_optimised
    assert np.array_equal(whole.state(), resumed.state(), equal_nan=True)
    number = [one.step for one in seen].index(int(only.message.split()[1].rstrip(":")))
    assert number == told_at(gold_T, error_T)
    assert 25 < number < 42
    assert only.numbers["gold_after"] < only.numbers["gold_before"]
    assert only.numbers["root_kl_after"] > only.numbers["root_kl_before"]


def test_the_best_step_is_where_four_iterations_had_the_most_gold():
    watch, gold, told = Watch(), [0, 0, 0, 8, 0, 3, 3, 4, 4, 4, 1, 9, 0, 0], []
    for number, value in enumerate(gold):
        watch.note(iteration(number + 1, float(value)))
        told.append(watch.best_steps)
    means = [sum(gold[end - 4 : end]) / 4 for end in range(4, len(gold) + 1)]
    assert told[:3] == [[], [], []]
    assert told[3] == [4]
    assert told[-1][-1] == int(np.argmax(means)) + 4
    # The one before is still there while the newest is being saved.
    assert told[-1] == [10, 12]


@pytest.mark.parametrize(
    ("late", "words"),
    [
        ({"disagreement": 0.9}, "the reward models disagree 3.00 times"),
        ({"length": 45.0}, "answers have become longer: 2.25 times"),
        ({"length": 8.0}, "answers have become shorter: 0.40 times"),
        ({"disagreement": 0.4, "length": 22.0}, ""),
    ],
)
def test_without_gold_other_signals_are_told_of_and_no_more(late, words):
    """They are no proof: no run may end by them."""
    watch, told = Watch(), []
    for number in range(40):
        others = {"disagreement": 0.3} | (late if number >= 20 else {})
        told += watch.note(iteration(number + 1, None, gold_error=None, **others))
    assert [one.kind for one in told] == (["reward_in_doubt"] if words else [])
    assert all(words in one.message for one in told)
    assert not watch.is_over_optimised


def test_answers_to_one_prompt_count_as_alike():
    """Four answers that are always the same would count as four, and half the noise be taken for a fall."""
    random = np.random.default_rng(0)
    prompts = np.repeat(np.arange(16), 4)
    means, errors = [], []
    for _ in range(2000):
        values = random.standard_normal(16)[prompts] + 0.3 * random.standard_normal(64)
        means.append(values.mean())
        errors.append(clustered_error(values, prompts))
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(means), rel=0.05)
    assert clustered_error([1.0, 2.0], [5, 5]) is None
