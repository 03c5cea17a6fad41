"""Intervals: 95 in 100 hold the truth, whatever the clusters look like."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from evals.calibration import expected_error_statistic
from evals.intervals import Clusters, clusters_of, mean_of, measure, ratio_of
from evals.metrics import METRICS
from evals.metrics.labels import RankCorrelation
from seedbed.statistics import t_quantile, t_tail

NUM_EVALUATIONS = 500


def clustered(sizes) -> Clusters:
    return Clusters(np.repeat(np.arange(len(sizes)), sizes), len(sizes))


def skewed_sizes(draw, num, middle=1.5, spread=1.0):
    return 1 + draw.lognormal(middle, spread, num).astype(int)


def normal_scores(sizes_of, correlation):
    """Scores of which the items of a cluster share a part."""

    def one(draw):
        clusters = clustered(sizes_of(draw))
        shared = draw.normal(size=clusters.num)[clusters.index_N]
        own = draw.normal(size=len(clusters.index_N))
        return mean_of(math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own), clusters

    return one, 0.0


def answers(sizes_of, share, concentration):
    """Right or wrong; some documents are easier than others."""

    def one(draw):
        clusters = clustered(sizes_of(draw))
        easy = draw.beta(share * concentration, (1 - share) * concentration, clusters.num)
        right = draw.random(len(clusters.index_N)) < easy[clusters.index_N]
        return mean_of(right.astype(float), "share"), clusters

    return one, share


def bits_of_documents(num, spread):
    """Nats over bytes of documents, of which a few are very long."""

    def one(draw):
        sizes = 1 + draw.lognormal(8, spread, num).astype(int)
        return ratio_of(draw.gamma(20, 0.7 / 20, num) * sizes, sizes, "log"), clustered(np.ones(num, int))

    return one, 0.7


def bits_of_sources(num, spread):
    """The same, of documents that lie in folders that are alike inside."""

    def one(draw):
        of_source = np.repeat(np.arange(num), 1 + draw.poisson(4, num))
        sizes = 1 + draw.lognormal(8, spread, len(of_source)).astype(int)
        rate = draw.gamma(30, 1 / 30, num)[of_source] * draw.gamma(30, 0.7 / 30, len(of_source))
        clusters = clusters_of(range(len(of_source)), of_source.tolist())
        assert clusters.over == "sources"
        return ratio_of(rate * sizes, sizes, "log"), clusters

    return one, 0.7


def macro_f1(num, per_document):
    """Three labels, one of them rare; documents differ in how often they are mistaken."""
    of_label = np.array([0.6, 0.3, 0.1])

    def one(draw, num=num):
        document = np.repeat(np.arange(num), per_document)
        gold = draw.choice(3, p=of_label, size=len(document))
        wrong = draw.random(len(gold)) < draw.beta(2, 5, num)[document]
        predicted = np.where(wrong, (gold + draw.integers(1, 3, len(gold))) % 3, gold)
        items = [{"predicted": p, "gold": g} for p, g in zip(predicted.tolist(), gold.tolist(), strict=True)]
        return METRICS["macro_f1"].of(items), Clusters(document, num)

    return one, one(np.random.default_rng(0), 60_000)[0].value()


def rank_correlation(num, per_document):
    """Normal pairs with a correlation of 0.6 between documents and within."""

    def one(draw):
        index = np.repeat(np.arange(num), per_document)

        def noise():
            return math.sqrt(0.4) * draw.normal(size=num)[index] + math.sqrt(0.6) * draw.normal(
                size=len(index)
            )

        x = noise()
        return RankCorrelation(x, 0.6 * x + 0.8 * noise()), Clusters(index, num)

    return one, 6 / math.pi * math.asin(0.3)


def calibration_error(num, per_document):
    """Confidence that is 0.15 too high everywhere; documents differ in how hard they are."""

    def one(draw):
        document = np.repeat(np.arange(num), per_document)
        confidence = draw.uniform(0.3, 1.0, len(document))
        hard = draw.uniform(-0.1, 0.1, num)[document]
        right = draw.random(len(document)) < confidence - 0.15 + hard
        return expected_error_statistic(confidence, right.astype(float)), Clusters(document, num)

    return one, 0.15


def equal(num, each):
    return lambda draw: np.full(num, each)


def skewed(num, middle=1.5, spread=1.0):
    return lambda draw: skewed_sizes(draw, num, middle, spread)


SHAPES = {
    "alike": normal_scores(equal(30, 10), 0.3),
    "few": normal_scores(equal(8, 20), 0.5),
    "unequal": normal_scores(skewed(40), 0.3),
    "unequal, independent": normal_scores(skewed(40), 0.0),
    "one item each": normal_scores(equal(100, 1), 0.0),
    "answers": answers(equal(50, 4), 0.6, 4),
    "answers, nearly all right": answers(equal(40, 5), 0.95, 10),
    "answers, unequal": answers(skewed(40, 1.0, 0.8), 0.8, 3),
    "bits": bits_of_documents(60, 0.8),
    "bits, long tail": bits_of_documents(200, 1.3),
    "bits, twelve sources": bits_of_sources(12, 0.8),
    "bits, thirty sources": bits_of_sources(30, 1.0),
    "macro-F1": macro_f1(50, 6),
    "rank correlation": rank_correlation(40, 4),
    "calibration error": calibration_error(60, 10),
}


def coverage(one, truth) -> float:
    held = 0
    for number in range(NUM_EVALUATIONS):
        found = measure(*one(np.random.default_rng([number, 1])))
        held += found.low <= truth <= found.high
    return held / NUM_EVALUATIONS


@pytest.mark.parametrize("shape", SHAPES)
def test_ninety_five_in_a_hundred_intervals_hold_the_truth(shape):
    """A narrower interval calls noise a result; a wider one hides results."""
    assert 0.93 <= coverage(*SHAPES[shape]) <= 0.97


def test_items_taken_as_independent_are_far_too_sure():
    """The test above would prove nothing if any interval passed it."""
    one, truth = SHAPES["few"]

    # Each item a cluster of its own.
    def alone(draw):
        statistic, clusters = one(draw)
        return statistic, clusters_of(range(len(clusters.index_N)))

    assert coverage(alone, truth) < 0.6


def test_a_mean_of_equal_clusters_is_students():
    """Away from what the textbook gives for the simplest case, no formula for harder ones can be right."""
    draw = np.random.default_rng(0)
    means = draw.normal(size=9)
    scores = (means[:, None] + np.array([-1, 0, 1])).ravel()
    found = measure(mean_of(scores), clustered([3] * 9))
    low, high = stats.t.interval(0.95, 8, means.mean(), stats.sem(means))
    assert found.standard_error == pytest.approx(stats.sem(means))
    assert found.low <= low
    assert found.high >= high
    assert found.freedom <= 8
    even = measure(mean_of([0.0, 1.0] * 6), clustered([1] * 12))
    assert even.freedom == pytest.approx(11)
    assert (even.low, even.high) == pytest.approx(stats.t.interval(0.95, 11, 0.5, stats.sem([0, 1] * 6)))


def test_one_cluster_gives_no_interval():
    """Many items of one document would look like a sure result."""
    found = measure(mean_of([0.2, 0.4, 0.9]), clustered([3]))
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert found.as_json() | {"value": 0.5} == {
        "value": 0.5,
        "low": None,
        "high": None,
        "standard_error": None,
        "freedom": 0.0,
        "items": 3,
        "clusters": 1,
        "over": "documents",
    }
    assert (measure(mean_of([1.0, 1.0], "share"), clustered([2])).low) == 0
    with pytest.raises(ValueError, match="no item"):
        measure(mean_of([]), clustered(np.zeros(0, int)))


@pytest.mark.parametrize("right", [0, 1, 19, 20])
def test_shares_stay_between_none_and_all_and_are_never_certain(right):
    """Twenty of twenty right would read as 100 % in [100 %, 100 %], or as up to 107 %."""
    found = measure(mean_of([1.0] * right + [0.0] * (20 - right), "share"), clustered([1] * 20))
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.high - found.low > 0.1


def test_sources_are_clusters_where_there_are_enough():
    """Files of one project are alike: taken as independent, they would make a score look surer than it is."""
    documents = [f"d{number // 2}" for number in range(60)]
    many = [f"s{number // 6}" for number in range(60)]
    assert (clusters_of(documents, many).over, clusters_of(documents, many).num) == ("sources", 10)
    few = ["web"] * 40 + ["books"] * 20
    assert (clusters_of(documents, few).over, clusters_of(documents, few).num) == ("documents", 30)
    assert clusters_of(documents, few, over="sources").num == 2
    assert clusters_of(documents, many, over="documents").num == 30


def test_a_document_in_two_sources_joins_them():
    """A text that was crawled twice would be counted as two independent ones."""
    found = clusters_of(["a", "b", "b", "c", "d"], ["x", "x", "y", "y", "z"], over="sources")
    assert found.index_N.tolist() == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("freedom", [1, 1.5, 2.7, 8, 40, 1000])
def test_students_distribution_is_scipys(freedom):
    """Intervals of few clusters live from its tails."""
    for t in (0, 0.01, 0.7, 2, 9, 60):
        assert t_tail(t, freedom) == pytest.approx(2 * stats.t.sf(t, freedom), rel=1e-9)
    for share in (0.001, 0.3, 0.5, 0.8, 0.975, 0.9999):
        assert t_quantile(share, freedom) == pytest.approx(stats.t.ppf(share, freedom), rel=1e-8, abs=1e-12)
    assert t_quantile(0.975, math.inf) == pytest.approx(1.959963985)
    assert t_tail(math.inf, freedom) == 0


@given(
    items=st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from([0.0, 0.0, 0.5, 1.0]), st.sampled_from([0, 1, 1, 7])),
        min_size=1,
        max_size=12,
    ),
    scale=st.sampled_from(["plain", "log", "log-odds", "percent", "correlation", "share"]),
)
def test_odd_sets_of_items_have_an_interval_around_their_value(items, scale):
    """A task where nothing is right, or a document is empty, would end an evaluation that took an hour."""
    clusters = clusters_of([cluster for cluster, _, _ in items])
    weights = np.array([weight for _, _, weight in items], dtype=float)
    scores = np.array([score for _, score, _ in items]) * weights
    found = measure(ratio_of(scores, weights, scale), clusters)
    if weights.any():
        assert found.low <= found.value <= found.high
        assert found.standard_error >= 0
    else:
        assert math.isnan(found.value)
        assert found.as_json()["value"] is None
