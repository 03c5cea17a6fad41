"""Two checkpoints on the same items: what is better is found, and what is not is not."""

import math

import numpy as np
import pytest
from scipy import stats

from evals.comparison import compare, compare_results, compare_tasks, described, holm, items_needed, paired
from evals.task_results import ItemScores, read_scores, summarize, write_scores
from seedbed.errors import DataError
from seedbed.files import write_json

DIGEST = "ab" * 32


def bits(draw, num_documents=60, gain=0.01, noise=0.02):
    """The nats that two models need for documents, of which the second needs a little less."""
    sizes = 500 + draw.gamma(2, 1000, num_documents).astype(int)
    rate = draw.gamma(20, 0.7 / 20, num_documents)
    better = rate * (1 - gain + noise * draw.normal(size=num_documents))
    return scores(rate * sizes, sizes), scores(better * sizes, sizes)


def scores(nats, sizes):
    rows = [
        {"item": f"d{n}", "cluster": f"d{n}", "source": f"s{n % 3}", "nats": float(a), "utf8_bytes": int(b)}
        for n, (a, b) in enumerate(zip(nats, sizes, strict=True))
    ]
    return ItemScores(rows, DIGEST)


def answered(wanted, given, per_document=1, digest=DIGEST):
    rows = [
        {"item": f"q{n}", "cluster": f"d{n // per_document}", "source": "s", "gold": w, "predicted": g}
        for n, (w, g) in enumerate(zip(wanted, given, strict=True))
    ]
    return ItemScores(rows, digest)


def marked(right, per_document=1):
    return answered([1] * len(right), [int(one) for one in right], per_document)


def test_pairs_show_a_difference_that_two_intervals_hide():
    """A real gain of one percent would be thrown away as noise."""
    before, after = bits(np.random.default_rng(0))
    found = compare(before, after, "bits_per_byte")
    apart = math.hypot(found.before.standard_error, found.after.standard_error)
    assert 2 * stats.norm.sf(abs(found.difference.value) / apart) > 0.5
    assert found.before.low < found.after.value < found.before.high
    assert found.verdict == "better"
    assert found.difference.high < 0
    assert found.p < 0.01
    assert compare(after, before, "bits_per_byte").verdict == "worse"
    assert "better: bits_per_byte" in described(found)
    assert "60 items in 60 documents" in described(found)


def test_the_same_scores_are_tied_with_nothing_between_them():
    """A checkpoint could be better than itself."""
    before, _ = bits(np.random.default_rng(1))
    found = compare(before, before, "bits_per_byte")
    assert (found.verdict, found.p, found.items_needed) == ("tied", 1.0, None)
    assert (found.difference.low, found.difference.value, found.difference.high) == (0, 0, 0)
    assert "tied" in described(found)


def test_equal_models_are_found_different_one_time_in_twenty():
    """Verdicts that are wrong more often would send users after noise."""
    wrong = 0
    for number in range(500):
        draw = np.random.default_rng([number, 7])
        easy = draw.beta(2, 2, 30).repeat(6)
        pair = [marked(draw.random(180) < easy, per_document=6) for _ in range(2)]
        wrong += compare(*pair, "label_accuracy").verdict != "tied"
    assert 0.03 <= wrong / 500 <= 0.07


def test_the_items_it_asks_for_settle_it_eight_times_in_ten():
    """A user would score ten times too many items, or too few to learn anything."""
    draw = np.random.default_rng(3)
    pilot = compare(*bits(draw, num_documents=2000, gain=0.004), "bits_per_byte")
    one = pilot.difference
    needed = items_needed(one, abs(one.value))
    assert needed is not None
    assert 60 < needed < 1000
    found = [
        compare(*bits(np.random.default_rng([n, 9]), needed, gain=0.004), "bits_per_byte").verdict == "better"
        for n in range(300)
    ]
    assert 0.72 <= np.mean(found) <= 0.88


def test_clusters_ask_for_more_items():
    """Ten questions on one text are not ten: the verdict would come too early."""
    draw = np.random.default_rng(4)
    before = draw.random(40).repeat(10) < 0.5
    after = np.where(draw.random(40).repeat(10) < 0.2, True, before)
    found = compare(marked(before, 10), marked(after, 10), "label_accuracy")
    assert found.design_effect > 5
    alone = compare(marked(before), marked(after), "label_accuracy")
    assert alone.design_effect == pytest.approx(1)
    assert found.items_needed > 4 * alone.items_needed
    assert found.detectable > 2 * alone.detectable


def test_a_few_documents_that_agree_prove_little():
    """Three documents with the same difference have no variance, and would be called certain."""
    few = compare(marked([0] * 3), marked([1] * 3), "label_accuracy")
    assert (few.verdict, few.p, few.difference.low) == ("tied", 0.25, -math.inf)
    many = compare(marked([0] * 9), marked([1] * 9), "label_accuracy")
    assert (many.verdict, many.difference.low) == ("better", 1.0)
    alone = compare(marked([0] * 9, 9), marked([1] * 9, 9), "label_accuracy")
    assert (alone.verdict, alone.items_needed) == ("tied", None)
    assert alone.as_json()["difference"]["low"] is None


def test_other_items_are_an_error_that_names_them():
    """A verdict on different questions would look like any other."""
    before = answered("abcd", "abba")
    shorter = ItemScores(before.rows[:2], DIGEST)
    with pytest.raises(DataError, match="2 of 4 items were scored for the first alone: q2, q3"):
        compare(before, shorter, "label_accuracy")
    with pytest.raises(DataError, match="for the second alone: q2, q3"):
        compare(shorter, before, "label_accuracy")
    changed = ItemScores([*before.rows[:3], {**before.rows[3], "digest": "new"}], "cd" * 32)
    with pytest.raises(
        DataError, match="other contents, such as q3: digest abababababab before, cdcdcdcdcdcd"
    ):
        compare(before, changed, "label_accuracy")
    with pytest.raises(DataError, match="q0 more than once"):
        ItemScores([before.rows[0], before.rows[0]], DIGEST)
    with pytest.raises(DataError, match="row 1 of the scores has no 'cluster'"):
        ItemScores([{"item": "x", "source": "s"}], DIGEST)


def test_pairs_are_made_by_name_and_not_by_place():
    """Scores written in another order would be compared across items."""
    before = answered("abcd", "abba")
    turned = ItemScores(before.rows[::-1], DIGEST)
    assert compare(before, turned, "label_accuracy").verdict == "tied"
    assert paired(before, turned)[1].names == before.names


def test_many_tasks_at_once_are_many_chances_to_be_wrong():
    """Of twenty tasks one would be 'better' by chance alone."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    draw = np.random.default_rng(5)
    tasks = {}
    for number in range(20):
        easy = draw.random(200)
        tasks[f"t{number}"] = (*(marked(draw.random(200) < easy) for _ in range(2)), "label_accuracy")
    each = [compare(*task).verdict for task in tasks.values()]
    assert each != ["tied"] * 20
    together = compare_tasks(tasks)
    assert {one.verdict for one in together.values()} == {"tied"}
    assert next(iter(together.values())).num_comparisons == 20


def test_results_come_back_from_their_files(tmp_path):
    """A comparison a month later would have nothing to compare."""
    before, _ = bits(np.random.default_rng(6))
    write_scores(tmp_path / "scores.jsonl", before)
    again = read_scores(tmp_path / "scores.jsonl", DIGEST)
    assert again == before
    result = summarize("bits", again, ["bits_per_byte"], "scores.jsonl")
    assert result.primary == "bits_per_byte"
    assert list(result.by_source) == ["s0", "s1", "s2"]
    assert result.by_source["s0"]["bits_per_byte"].items == 20
    shown = result.as_json()
    assert (shown["unit"], shown["items"], shown["metric"]) == ("bits per byte", DIGEST, "bits_per_byte")
    assert shown["low"] < shown["value"] < shown["high"]
    assert shown["metrics"]["bits_per_byte"]["greater_is_better"] is False
    write_json(tmp_path / "result.json", shown)
    both = compare_results(tmp_path / "result.json", tmp_path / "result.json")
    assert (both.verdict, both.metric) == ("tied", "bits_per_byte")
    write_json(tmp_path / "other.json", {"value": 3})
    with pytest.raises(DataError, match=r"other\.json is no result of a task"):
        compare_results(tmp_path / "result.json", tmp_path / "other.json")
    (tmp_path / "scores.jsonl").write_text('{"item": ', encoding="utf-8")
    with pytest.raises(DataError, match="damaged"):
        read_scores(tmp_path / "scores.jsonl", DIGEST)
    with pytest.raises(DataError, match="cannot be read"):
        read_scores(tmp_path / "none.jsonl", DIGEST)


def test_companions_come_along_where_the_items_have_what_they_need():
    """A task of labels without probabilities would fail for a metric that nobody asked for."""
    plain = answered([0, 1, 1, 0], [0, 1, 0, 0])
    assert list(summarize("labels", plain, ["macro_f1"]).metrics) == ["macro_f1"]
    sure = ItemScores([{**row, "probabilities": [0.5, 0.5]} for row in plain.rows], DIGEST)
    assert list(summarize("labels", sure, ["macro_f1"]).metrics) == ["macro_f1", "label_probability"]
    assert summarize("labels", sure, ["macro_f1"]).by_source == {}
