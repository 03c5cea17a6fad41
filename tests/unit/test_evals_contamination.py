"""Items that stand in the training text are found, and the score without them is told."""

import json

import numpy as np
import pytest

from data.build import build_dataset
from data.config import DataConfig
from data.decontamination import Decontaminator, Item
from evals.contamination import contamination, overlaps, overlaps_with_dataset
from evals.task_results import ItemScores
from seedbed.errors import DataError
from seedbed.randomness import generator


def words(seed, count):
    return [f"w{number}" for number in generator(seed, "test").integers(10_000, size=count)]


def text(seed, count):
    return " ".join(words(seed, count))


def test_every_item_that_overlaps_is_found_and_how_much_of_it():
    """An item learnt by heart would count as one that was understood."""
    shared = words(1, 30)
    items = {
        "whole": " ".join(shared[:20]),
        "again": " ".join(shared[:20]).upper(),
        "part": " ".join([*words(2, 20), *shared[7:20]]),
        "twelve": " ".join([*words(3, 20), *shared[8:20], *words(4, 5)]),
        "none": text(5, 40),
        "short": text(6, 7),
    }
    documents = [text(7, 100), f"{text(8, 50)} {' '.join(shared)} {text(9, 50)}", ""]
    found = overlaps(items, documents)
    assert {name: one.state for name, one in found.items()} == {
        "whole": "overlaps",
        "again": "overlaps",
        "part": "overlaps",
        "twelve": "clean",
        "none": "clean",
        "short": "too short",
    }
    assert found["whole"].share == found["again"].share == 1
    assert found["part"].share == pytest.approx(1 / 21)
    assert found["part"].example == " ".join(shared[7:20])
    assert overlaps({"short": "a b"}, documents)["short"].state == "too short"


def test_it_is_the_rule_of_the_build():
    """A dataset that was decontaminated would be reported as contaminated, or the other way round."""
    items = [Item(str(n), text(100 + n, count)) for n, count in enumerate((8, 11, 13, 14, 40))]
    draw = np.random.default_rng(0)
    documents = []
    for item in items:
        piece = item.text.split()
        first = int(draw.integers(len(piece)))
        documents.append(f"{text(50, 20)} {' '.join(piece[first : first + 13])} {text(51, 20)}")
        documents.append(f"{text(52, 20)} {item.text} {text(53, 9)}")
    for document in documents:
        by_build = Decontaminator((), items=items).find([document])[0]
        found = [
            name for name, one in overlaps({i.name: i.text for i in items}, [document]).items() if one.share
        ]
        assert ([by_build] if by_build else []) == found[:1]


def test_shards_are_read_as_they_were_trained_on(tmp_path):
    """What a filter before the build was meant to take out is not what is in the shards."""
    leaked = text(20, 30)
    rows = [{"text": f"{text(30 + n, 60)} {leaked if n == 3 else ''}"} for n in range(8)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = DataConfig(source=str(tmp_path / "in.jsonl"), vocab_size=300, holdout_fraction=0)
    dataset = build_dataset(config, tmp_path / "out")
    found = overlaps_with_dataset({"a": leaked, "b": text(21, 30)}, dataset)
    assert (found["a"].state, found["b"].state) == ("overlaps", "clean")


def scores(right):
    rows = [
        {"item": f"q{n}", "cluster": f"d{n}", "source": "s", "gold": 1, "predicted": int(r)}
        for n, r in enumerate(right)
    ]
    return ItemScores(rows, "d")


def test_the_score_of_the_clean_items_stands_beside_the_whole():
    """A benchmark that leaked would be reported as progress."""
    leaked = {f"q{n}": text(200 + n, 15) for n in range(20)}
    rest = {f"q{n}": text(300 + n, 15) for n in range(20, 60)} | {"q60": "too short"}
    known = overlaps(leaked | rest, leaked.values())
    found = contamination(scores([1] * 20 + [1, 0] * 20 + [1]), known, "label_accuracy")
    assert found.counts == {"clean": 40, "overlaps": 20, "too short": 1}
    assert found.all.value == pytest.approx(41 / 61)
    assert found.clean.value == pytest.approx(21 / 41)
    assert found.overlapping.value == 1
    assert 0 < found.gain.low < found.gain.value == pytest.approx(20 / 41)
    assert set(found.items) == set(leaked)
    assert found.as_json()["items"]["q0"]["share"] == 1
    nothing = contamination(scores([1, 0]), overlaps({"q0": leaked["q0"], "q1": "x"}, []), "label_accuracy")
    assert (nothing.overlapping, nothing.gain, nothing.counts["overlaps"]) == (None, None, 0)
    assert nothing.as_json()["gain"] is None
    with pytest.raises(DataError, match="not looked for in the training text: q1"):
        contamination(scores([1, 0]), {"q0": known["q0"]}, "label_accuracy")
