"""Metrics: the numbers that others would compute of the same answers."""

import json
import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as reference

from evals.calibration import expected_error_statistic, reliability_rows
from evals.intervals import Clusters, clusters_of, measure
from evals.metrics import METRICS, metric
from evals.metrics.answers import exact_match, normalized, pass_at_k, token_f1
from evals.metrics.labels import RankCorrelation
from evals.metrics.overlap import chrf, chrf_counts, longest_common, rouge_l, rouge_n
from evals.metrics.registry import with_companions
from seedbed.calibration import expected_calibration_error, reliability
from seedbed.errors import DataError, UsageError

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "text_metrics.json").read_text(encoding="utf-8"))


def value(name: str, items: list[dict]) -> float:
    return metric(name).statistic(items).value()


def choice_items(num: int = 40) -> list[dict]:
    draw = np.random.default_rng(3)
    items = []
    for number in range(num):
        count = int(draw.integers(2, 6))
        items.append(
            {
                "item": f"q{number}",
                "log_likelihoods": (-draw.gamma(4, 3, count)).tolist(),
                "unconditional": (-draw.gamma(4, 3, count)).tolist(),
                "choice_bytes": draw.integers(1, 40, count).tolist(),
                "choice_tokens": draw.integers(1, 9, count).tolist(),
                "gold": int(draw.integers(count)),
            }
        )
    return items


def test_perplexities_and_bits_are_one_number_in_several_units():
    """A published perplexity could not be compared with our bits per byte."""
    draw = np.random.default_rng(0)
    items = [
        {"nats": float(n), "utf8_bytes": b, "words": w, "tokens": t}
        for n, b, w, t in zip(
            draw.gamma(3, 50, 20),
            draw.integers(50, 900, 20).tolist(),
            draw.integers(9, 99, 20).tolist(),
            draw.integers(20, 300, 20).tolist(),
            strict=True,
        )
    ]
    nats = sum(item["nats"] for item in items)
    per_byte = nats / sum(item["utf8_bytes"] for item in items)
    assert value("bits_per_byte", items) == pytest.approx(per_byte / math.log(2))
    assert value("byte_perplexity", items) == pytest.approx(math.exp(per_byte))
    assert value("bits_per_word", items) == pytest.approx(math.log2(value("word_perplexity", items)))
    assert value("perplexity", items) == pytest.approx(math.exp(nats / sum(i["tokens"] for i in items)))
    found = metric("perplexity").measure(items, clusters_of(range(20)))
    assert 0 < found.low < found.value < found.high


@pytest.mark.parametrize(
    ("suffix", "compared"),
    [
        ("", lambda i: np.array(i["log_likelihoods"])),
        ("_per_byte", lambda i: np.array(i["log_likelihoods"]) / i["choice_bytes"]),
        ("_per_token", lambda i: np.array(i["log_likelihoods"]) / i["choice_tokens"]),
        ("_unconditional", lambda i: np.array(i["log_likelihoods"]) - i["unconditional"]),
    ],
)
def test_accuracy_by_likelihood_takes_the_likeliest_choice(suffix, compared):
    """Every comparison of models on multiple choice rests on which choice counts as taken."""
    items = choice_items()
    right = [int(np.argmax(compared(item))) == item["gold"] for item in items]
    sure = [float(np.exp(compared(i)[i["gold"]]) / np.exp(compared(i)).sum()) for i in items]
    assert value(f"accuracy{suffix}", items) == np.mean(right)
    assert value(f"choice_probability{suffix}", items) == pytest.approx(np.mean(sure))
    assert METRICS[f"accuracy{suffix}"].smooth == f"choice_probability{suffix}"


def test_a_model_that_knows_nothing_has_the_accuracy_of_chance():
    """Equal likelihoods would score by where the right answers stand: 1 when they all come first."""
    items = [{"log_likelihoods": [-3.0] * 4, "gold": 0}] * 5
    assert value("accuracy", items) == 0.25
    assert value("choice_probability", items) == pytest.approx(0.25)


def test_several_right_choices_count_together():
    """Questions with two right answers would be marked wrong for the other one."""
    items = [{"log_likelihoods": [0.0, math.log(2), math.log(3)], "gold": [0, 2], "choice_bytes": [1, 1, 2]}]
    assert value("accuracy", items) == 1
    assert value("choice_probability", items) == pytest.approx(4 / 6)
    assert value("gold_bits_per_byte", items) == pytest.approx(-math.log2(3) / 2)


def test_brier_and_ece_are_those_of_the_textbooks():
    """Calibration figures of other papers could not be put beside ours."""
    draw = np.random.default_rng(1)
    probabilities = draw.dirichlet(np.ones(4), 300)
    gold = draw.integers(4, size=300)
    items = [{"probabilities": p.tolist(), "gold": int(g)} for p, g in zip(probabilities, gold, strict=True)]
    one_hot = np.eye(4)[gold]
    assert value("brier_labels", items) == pytest.approx(((probabilities - one_hot) ** 2).sum(axis=1).mean())
    assert value("brier_labels", items) == pytest.approx(
        reference.brier_score_loss(gold, probabilities, labels=range(4), scale_by_half=False)
    )
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == gold
    by_hand = 0.0
    for low in np.arange(10) / 10:
        here = (sure >= low) & (sure < low + 0.1)
        by_hand += abs(right[here].sum() - sure[here].sum()) / 300
    assert value("ece_labels", items) == pytest.approx(by_hand)
    assert expected_calibration_error(sure, right.astype(float)) == pytest.approx(by_hand)
    assert METRICS["ece"].smooth == "brier"


def test_the_diagram_has_the_bins_of_the_error():
    """A diagram that shows other bins than the error is made of would explain nothing."""
    draw = np.random.default_rng(8)
    sure = draw.uniform(0.2, 1, 400)
    right = (draw.random(400) < sure**2).astype(float)
    clusters = Clusters(np.arange(400) // 4, 100)
    rows = reliability_rows(sure, right, clusters)
    assert [(row["confidence"], row["accuracy"], row["count"]) for row in rows] == [
        tuple(one) for one in reliability(sure, right)
    ]
    gaps = sum(abs(row["accuracy"] - row["confidence"]) * row["count"] for row in rows) / 400
    assert expected_error_statistic(sure, right).value() == pytest.approx(gaps)
    assert all(0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1 for row in rows)


def test_squad_normalisation_and_f1():
    """Answers that SQuAD counts as right would be wrong here, or the other way round."""
    assert normalized('The  Cat\'s "hat", an A-frame.') == "cats hat aframe"
    assert exact_match(" the U.S. ", ["Canada", "US"]) == 1
    assert exact_match("USA", ["US"]) == 0
    assert token_f1("Barack Hussein Obama", ["Obama", "Barack Obama"]) == pytest.approx(2 * 2 / (3 + 2))
    assert token_f1("a a b", ["b b"]) == pytest.approx(2 / 3)
    assert token_f1("the", [""]) == 1
    assert token_f1("x", [""]) == token_f1("", ["x"]) == token_f1("x", []) == 0


def test_pass_at_k_is_the_mean_over_all_ways_to_draw_k():
    """The naive 1 - (1 - c/n)^k is biased: models would differ by how often they were sampled."""
    for samples, passed, k in ((5, 2, 1), (6, 3, 2), (7, 1, 4), (8, 8, 3), (8, 0, 3)):
        outcomes = [index < passed for index in range(samples)]
        drawn = [any(chosen) for chosen in combinations(outcomes, k)]
        assert pass_at_k(samples, passed, k) == pytest.approx(np.mean(drawn))
    assert value("pass@3", [{"samples": 5, "passed": 2}, {"samples": 4, "passed": 0}]) == pytest.approx(0.45)
    with pytest.raises(ValueError, match="pass@9 of 8"):
        pass_at_k(8, 1, 9)


@pytest.mark.parametrize("row", GOLDEN["items"], ids=range(len(GOLDEN["items"])))
def test_chrf_and_rouge_are_those_of_the_packages(row):
    """Our figures could not be compared with published ones."""
    texts = row["prediction"], row["references"]
    assert float(chrf(np.array(chrf_counts(*texts), dtype=float))) == pytest.approx(row["chrf"], abs=1e-9)
    assert rouge_n(*texts, 1) == pytest.approx(row["rouge_1"], abs=1e-12)
    assert rouge_n(*texts, 2) == pytest.approx(row["rouge_2"], abs=1e-12)
    assert rouge_l(*texts) == pytest.approx(row["rouge_l"], abs=1e-12)


def test_bleu_and_chrf_of_a_corpus_are_sacrebleus():
    """A mean of sentence scores is another number than the one that papers report."""
    assert value("bleu", GOLDEN["items"]) == pytest.approx(GOLDEN["corpus"]["bleu"], abs=1e-9)
    assert value("chrf", GOLDEN["items"]) == pytest.approx(GOLDEN["corpus"]["chrf"], abs=1e-9)
    found = metric("bleu").measure(GOLDEN["items"], clusters_of(range(len(GOLDEN["items"]))))
    assert 0 < found.low < found.value < found.high < 100


@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abcd"), max_size=12))
def test_longest_common_subsequence(first, second):
    """ROUGE-L would be wrong for some texts that no example happens to hold."""
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, x in enumerate(first):
        for j, y in enumerate(second):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    assert longest_common(first, second) == table[-1][-1]


def test_label_metrics_are_scikit_learns_and_scipys():
    """GLUE's tasks are reported in these; another definition would be another benchmark."""
    draw = np.random.default_rng(5)
    gold = draw.choice(list("abcd"), 200, p=[0.5, 0.3, 0.19, 0.01])
    predicted = np.where(draw.random(200) < 0.6, gold, draw.choice(list("abc"), 200))
    items = [{"predicted": p, "gold": g} for p, g in zip(predicted.tolist(), gold.tolist(), strict=True)]
    assert value("macro_f1", items) == pytest.approx(reference.f1_score(gold, predicted, average="macro"))
    assert value("matthews", items) == pytest.approx(reference.matthews_corrcoef(gold, predicted))
    assert value("label_accuracy", items) == pytest.approx(reference.accuracy_score(gold, predicted))
    x = np.round(draw.normal(size=60), 1)
    y = np.round(x + draw.normal(size=60), 1) + 1e6
    items = [{"predicted": a, "gold": b} for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    assert value("spearman", items) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert value("pearson", items) == pytest.approx(stats.pearsonr(x, y).statistic)
    constant = [{"predicted": 1.0, "gold": b} for b in y.tolist()]
    assert value("spearman", constant) == value("pearson", constant) == 0


@pytest.mark.parametrize(
    "name", ["accuracy", "ece", "bleu", "chrf", "macro_f1", "matthews", "pearson", "spearman"]
)
def test_what_is_left_out_is_what_the_rest_would_give(name):
    """Intervals rest on the value without each cluster; a wrong one would be a wrong interval, quietly."""
    draw = np.random.default_rng(2)
    items = [{**row, "predicted": 0, "gold": 0} for row in GOLDEN["items"]]
    for item, choices in zip(items, choice_items(len(items)), strict=True):
        item |= choices | {"predicted": int(draw.integers(2)), "gold": int(draw.integers(2))}
    clusters = Clusters(np.arange(len(items)) // 8, len(items) // 8)
    found = metric(name).statistic(items).left_out(clusters)
    for number in range(clusters.num):
        rest = [item for item, own in zip(items, clusters.index_N, strict=True) if own != number]
        assert found[number] == pytest.approx(value(name, rest), abs=1e-9)


def test_every_threshold_has_a_smooth_companion():
    """A small model would show nothing but noise until it jumps over the threshold."""
    for name in ("accuracy", "exact_match", "pass@1", "ece", "macro_f1", "matthews", "label_accuracy"):
        smooth = metric(name).smooth
        assert smooth is not None
        assert METRICS[smooth].smooth is None
    assert [one.name for one in with_companions(["accuracy", "pass@5"])] == [
        "accuracy",
        "choice_probability",
        "pass@5",
        "pass_share",
    ]


def test_a_metric_says_what_it_lacks():
    """A KeyError deep inside would leave the user to guess which item, and what to do."""
    with pytest.raises(DataError, match="choice_bytes of every item, which item q7"):
        value("accuracy_per_byte", [{"item": "q7", "log_likelihoods": [-1, -2], "gold": 0}])
    with pytest.raises(UsageError, match="did you mean accuracy"):
        metric("acuracy")


def test_rank_correlation_keeps_inside_its_bounds():
    """A perfect correlation has no room above; an interval up to 1.07 would be nonsense."""
    x = np.arange(12.0)
    found = measure(RankCorrelation(x, x**3), clusters_of(range(12)))
    assert (found.low, found.value, found.high) == pytest.approx((1, 1, 1))
    noisy = x + np.random.default_rng(0).normal(size=12) * 2
    found = measure(RankCorrelation(x, noisy), clusters_of(range(12)))
    assert -1 < found.low < found.value < found.high < 1
