"""Robustness: changes are the same for every model, what they cost is measured, and certificates hold."""

import math
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from evals.robustness import PERTURBATIONS, by_distribution, robustness
from evals.robustness.perturbations import NEIGHBOURS
from evals.robustness.smoothing import certify, changed_votes, radius
from evals.task_results import ItemScores
from seedbed.errors import DataError, UsageError
from seedbed.statistics import share_at_least

TEXT = (
    "In 1998 the committee published 12 recommendations about drinking water for smaller communities. " * 20
)


@pytest.mark.parametrize("name", PERTURBATIONS)
@given(text=st.text(max_size=80), seed=st.integers(0, 5))
def test_changes_are_functions_of_text_and_seed(name, text, seed):
    """Two models would be compared on different texts."""
    change = PERTURBATIONS[name]
    assert change(text, seed) == change(text, seed)
    assert isinstance(change(text, seed), str)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_changes_change_something_and_keep_numbers(name):
    """A change that does nothing would prove robustness; one of numbers changes the answer."""
    changed = PERTURBATIONS[name](TEXT, 1)
    assert changed != TEXT.rstrip() or name == "trimmed_lines"
    assert changed.count("1998") == changed.count("12") == 20
    assert " ".join(changed.lower().split()).count("the ") >= 20


@pytest.mark.parametrize(
    ("name", "longer"),
    [("swapped_letters", 0), ("dropped_letters", -1), ("doubled_letters", 1), ("neighbouring_keys", 0)],
)
def test_typing_errors_are_one_letter_in_a_tenth_of_the_words(name, longer):
    """More, and nobody could read it; fewer, and nothing would be tested."""
    before, after = TEXT.split(), PERTURBATIONS[name](TEXT, 3).split()
    changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert 0.03 <= len(changed) / len(before) <= 0.15
    for old, new in changed:
        assert len(new) - len(old) == longer
        assert (new[0], new[-1]) == (old[0], old[-1])
        if name == "neighbouring_keys":
            [(was, now)] = [(x, y) for x, y in zip(old, new, strict=True) if x != y]
            assert now.lower() in NEIGHBOURS[was.lower()]
    assert PERTURBATIONS[name](TEXT, 4) != PERTURBATIONS[name](TEXT, 3)
    assert set(NEIGHBOURS["g"]) == set("fhtyvb")


def test_code_keeps_its_indentation():
    """A program with other indentation is another program."""
    code = "def f(x):\n    if x :\n        return x + 1\n"
    assert [
        line[: len(line) - len(line.lstrip())] for line in PERTURBATIONS["more_space"](code, 1).split("\n")
    ] == [line[: len(line) - len(line.lstrip())] for line in code.split("\n")]


def test_templates_leave_braces_alone():
    """A question about JSON would be an error, or lose its braces."""
    assert PERTURBATIONS["template_q_a"]('What is {"a": 1}?') == 'Q: What is {"a": 1}?\nA:'


def marked(right, sources=None):
    rows = [
        {"item": f"q{n}", "cluster": f"d{n // 2}", "source": s, "gold": 1, "predicted": int(r)}
        for n, (r, s) in enumerate(zip(right, sources or ["s"] * len(right), strict=True))
    ]
    return ItemScores(rows, "ab" * 32)


def test_worst_case_is_by_item_and_mean_over_changes():
    """The worst perturbation on average hides that each item fails under some wording."""
    clean = marked([1, 1, 1, 1, 0, 0] * 10)
    changes = {"a": marked([1, 0, 1, 1, 0, 0] * 10), "b": marked([0, 1, 1, 1, 1, 0] * 10)}
    found = robustness(clean, changes, "label_accuracy")
    assert found.clean.value == pytest.approx(4 / 6)
    assert found.mean.value == pytest.approx((3 + 4) / 12)
    assert found.worst.value == pytest.approx(2 / 6)
    assert found.worst.low < 2 / 6 < found.worst.high
    assert found.by_perturbation["a"].difference.value == pytest.approx(-1 / 6)
    assert found.by_perturbation["a"].num_comparisons == 2
    assert found.by_perturbation["b"].verdict == "tied"
    assert found.as_json()["worst"]["value"] == pytest.approx(2 / 6)
    with pytest.raises(DataError, match="no perturbation"):
        robustness(clean, {}, "label_accuracy")
    with pytest.raises(UsageError, match="spearman has no value of a single item"):
        robustness(clean, changes, "spearman")


def test_the_worst_of_bits_is_the_most():
    """For a metric where less is better, the best case would be shown as the worst."""

    def bits(*nats):
        rows = [
            {"item": str(n), "cluster": str(n), "source": "s", "nats": x, "utf8_bytes": 10}
            for n, x in enumerate(nats)
        ]
        return ItemScores(rows, "d")

    found = robustness(bits(7, 9, 8), {"a": bits(10, 8, 8)}, "bits_per_byte")
    assert found.worst.value * math.log(2) == pytest.approx((10 + 9 + 8) / 30)


def test_unseen_sources_are_told_apart():
    """A model that has learnt its sources by heart would look good on all of them together."""
    draw = np.random.default_rng(0)
    right = np.concatenate([draw.random(200) < 0.8, draw.random(100) < 0.5])
    found = by_distribution(marked(right, ["web"] * 200 + ["law"] * 100), {"web", "books"}, "label_accuracy")
    assert found["inside"].value == pytest.approx(right[:200].mean())
    assert found["outside"].value == pytest.approx(right[200:].mean())
    gap = found["difference"]
    assert gap.value == pytest.approx(right[200:].mean() - right[:200].mean())
    assert gap.low < gap.value < gap.high < 0
    apart = math.hypot(found["inside"].standard_error, found["outside"].standard_error)
    assert gap.standard_error == pytest.approx(apart, rel=0.02)
    assert found["share_outside"] == pytest.approx(1 / 3)
    with pytest.raises(DataError, match="of 300 items, every one is of a source"):
        by_distribution(marked(right), {"s"}, "label_accuracy")


def test_intervals_of_the_gap_hold_the_truth():
    """A gap that is none would be found more often than one time in twenty."""
    held = 0
    for number in range(500):
        draw = np.random.default_rng([number, 5])
        easy = draw.beta(4, 2, 60).repeat(2)
        easy[80:] *= 0.7
        found = by_distribution(
            marked(draw.random(120) < easy, ["web"] * 80 + ["law"] * 40), {"web"}, "label_accuracy"
        )["difference"]
        held += found.low <= -0.3 * 4 / 6 <= found.high
    assert 0.93 <= held / 500 <= 0.97


@pytest.mark.parametrize(("num_tokens", "num_kept"), [(5, 1), (5, 2), (6, 2), (7, 2)])
def test_no_attack_turns_what_is_certified(num_tokens, num_kept):
    """A certificate that one attack breaks is worth nothing: here every attack is tried."""
    subsets = list(combinations(range(num_tokens), num_kept))
    draw = np.random.default_rng(num_tokens * 10 + num_kept)
    tokens = range(3)
    certified = 0
    for _ in range(30):
        # Any classifier at all: a random answer for each thing it may see, most of them "yes".
        seen = {
            (kept, words): bool(draw.random() < 0.85)
            for kept in subsets
            for words in product(tokens, repeat=num_kept)
        }

        def share(text, seen=seen):
            return np.mean([seen[kept, tuple(text[place] for place in kept)] for kept in subsets])

        text = tuple(draw.integers(3, size=num_tokens).tolist())
        reach = radius(float(share(text)), num_tokens, num_kept)
        certified += reach > 0
        for other in product(tokens, repeat=num_tokens):
            if sum(a != b for a, b in zip(text, other, strict=True)) <= reach:
                assert share(other) > 0.5
    assert certified >= 5


def test_how_many_votes_see_a_change():
    """The formula is the certificate."""
    assert changed_votes(10, 3, 0) == 0
    assert changed_votes(10, 1, 2) == pytest.approx(0.2)
    subsets = list(combinations(range(8), 3))
    assert changed_votes(8, 3, 2) == pytest.approx(np.mean([0 in one or 1 in one for one in subsets]))
    assert changed_votes(8, 3, 7) == 1
    assert radius(1.0, 20, 1) == 9
    assert radius(0.5, 20, 1) == -1
    with pytest.raises(ValueError, match="9 kept"):
        changed_votes(8, 9, 1)


def test_votes_are_bounded_before_they_are_believed():
    """A hundred votes of a hundred are no proof that every vote would be the same."""
    for successes, trials in ((0, 10), (3, 10), (99, 100), (100, 100), (730, 1000)):
        exact = stats.binomtest(successes, trials, alternative="greater").proportion_ci(0.95, "exact").low
        assert share_at_least(successes, trials, 0.05) == pytest.approx(exact, abs=1e-9)
    sure = certify(lambda texts: ["yes"] * len(texts), list(range(1, 31)), 0, num_kept=3)
    assert (sure.label, sure.radius) == ("yes", radius(share_at_least(1000, 1000, 0.05), 30, 3))
    assert sure.radius >= 5
    coin = iter(range(10_000))
    close = certify(lambda texts: [next(coin) % 2 for _ in texts], list(range(1, 31)), 0, num_kept=3)
    assert (close.label, close.radius) == (None, -1)
