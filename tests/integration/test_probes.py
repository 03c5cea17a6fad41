"""`seedbed probe`: heads that learn from what a text says learn it, and heads on noise do not."""

import json
from pathlib import Path

import pytest
import torch

from evals.probes.encoded import Encoder
from evals.probes.examples import BUILDERS, Example, read_examples
from evals.probes.fitting import Fit, _best_span
from evals.probes.results import probe
from evals.tasks.local import Text
from seedbed.errors import DataError, UsageError

WORDS = ("seed", "bed", "grows", "from", "raw", "text", "to", "model", "with", "one", "command", "shard")
CODE = '''
def doubled(number):
    """Twice the number."""
    total = number * 2
    return total


def joined(words, mark):
    """All words with a mark between them."""
    return mark.join(words)


class Box:
    pass
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A BERT that has hardly learned, and examples whose answers follow from a word."""
    folder = tmp_path_factory.mktemp("probes")
    texts = folder / "texts"
    for number in range(40):
        path = texts / ("one", "two")[number % 2] / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = (" ".join(WORDS[(number + k * j) % 12] for k in range(8)) for j in range(1, 12))
        path.write_text("".join(f"{line.capitalize()}. \n" for line in lines))
    (folder / "train.jsonl").write_text("".join(line(number) for number in range(64)))
    (folder / "test.jsonl").write_text("".join(line(number) for number in range(64, 104)))
    return folder


def line(number: int) -> str:
    words = [WORDS[(number * 7 + place * 5) % 12] for place in range(6)]
    tags = ["short" if len(word) < 4 else "long" for word in words]
    return json.dumps({"words": words, "tags": tags}) + "\n"


@pytest.fixture(scope="module")
def encoder_run(folder, tmp_path_factory) -> Path:
    from training.prepare import start

    settings = {
        "data.source": f'"{folder / "texts"}"', "data.vocab_size": 300, "data.near_duplicate_threshold": 0,
        "model.num_layers": 1, "model.width": 32, "model.num_heads": 2, "model.context": 64, "run.steps": 1,
        "batch.tokens_per_step": 512, "engine.num_ranks": 1, "tracking.mlflow": "false",
    }  # fmt: skip
    run, _ = start("bert-demo", [f"{key}={value}" for key, value in settings.items()], folder / "run")
    from tests.one_rank import train

    train(run, folder / "group")
    return folder / "run"


def test_heads_learn_what_follows_from_a_word_and_are_compared(seedbed_cli, folder, encoder_run):
    files = ("--train", folder / "train.jsonl", "--test", folder / "test.jsonl")
    outcome = seedbed_cli(
        "probe", encoder_run, *files, "--seeds", "2", "--steps", "60", "--compare", encoder_run, "--json"
    )
    assert outcome.code == 0, outcome.stderr
    found = json.loads(outcome.stdout)["probes"]["train"]
    tuned, linear = (found["metrics"][f"accuracy of tags, {mode}"] for mode in ("tuned", "linear"))
    assert tuned["value"] > max(0.95, found["most_frequent"] + 0.1)
    assert linear["value"] < tuned["value"]
    assert tuned["low"] <= tuned["value"] <= tuned["high"]
    assert len(tuned["seeds"]) == 2
    # The same encoder, seeds and order: the same answers.
    assert [one["verdict"] for one in found["comparisons"].values()] == ["tied", "tied"]
    assert [one["value"] for one in found["comparisons"].values()] == [0, 0]
    (kept,) = (encoder_run / "evals").glob("probe-train-step-*.json")
    assert json.loads(kept.read_text())["metric"] == "accuracy of tags, tuned"


def row(kind: str, number: int) -> dict[str, str]:
    """What is to be said of it stands in it."""
    words = [WORDS[(number * 7 + place * 5) % 12] for place in range(5)]
    mark = ("seed", "raw")[number % 2]
    if kind == "sequence":
        return {"text": " ".join([mark, *words[:2]]), "label": mark}
    if kind == "pair":
        return {"first": mark, "second": " ".join(words[:2]), "label": mark}
    words[number % 5] = "answer"
    return {"question": "where is it", "context": " ".join(words), "answer": "answer"}


@pytest.mark.parametrize("kind", ["sequence", "pair", "span"])
def test_each_kind_of_head_learns(encoder_run, tmp_path, kind):
    for name, numbers in (("train", range(64)), ("test", range(64, 104))):
        (tmp_path / name).write_text("".join(json.dumps(row(kind, n)) + "\n" for n in numbers))
    found = probe(
        encoder_run,
        [kind],
        files={kind: (tmp_path / "train", tmp_path / "test")},
        modes=("tuned",),
        num_seeds=2,
        how=Fit(steps=120, lr=2e-3),
    )["probes"][kind]
    assert found["value"] > 0.9, found["metrics"]
    assert found["num_items"] == 40


def test_probes_are_made_of_the_texts_of_a_run(encoder_run):
    few = {"num_seeds": 2, "modes": ("linear",), "how": Fit(steps=2)}
    found = probe(encoder_run, ["next-sentence"], **few)["probes"]["next-sentence"]
    assert found["labels"] == ["follows", "not"]
    assert found["num_items"] > 0
    # Two packages are too few for a choice among four: no example.
    with pytest.raises(DataError, match="package: there are 0 examples"):
        probe(encoder_run, ["package"], **few)
    with pytest.raises(UsageError, match="no probe 'packages'"):
        probe(encoder_run, ["packages"], **few)


def test_examples_of_code_say_what_its_tokens_and_docstrings_are():
    texts = [Text("a", "package/a.py", CODE * 3), Text("b", "package/b.py", "no ( python")]
    tagged = [pair for one in BUILDERS["names"](texts, 0) for pair in zip(one.words, one.tags, strict=True)]
    for pair in (
        ("doubled", "def"),
        ("total", "assigned"),
        ("join", "method"),
        ("return", "keyword"),
        ("2", "number"),
    ):
        assert pair in tagged
    spans = list(BUILDERS["docstring"](texts, 0))
    assert spans
    for one in spans:
        first, last = one.span
        name = "doubled" if one.words[0] == "Twice" else "joined"
        assert one.other[first : last + 1][1].startswith(name)


def test_what_does_not_fit_is_cut_or_left_out():
    class Letters:
        kind, special_ids = "wordpiece", {"[CLS]": 0, "[SEP]": 1, "[MASK]": 2, "[PAD]": 3}
        vocab_size = 30

        def to_bytes(self):
            return json.dumps({"model": {"vocab": {chr(97 + n): 4 + n for n in range(26)}}}).encode()

        def encode(self, word):
            return [4 + ord(letter) - 97 for letter in word]

    long = Example("x", "tagging", ("ab", "cd", "ef"), tags=("p", "q", "p"))
    asks = Example("y", "span", ("ab",), ("cd", "ef", "gh"), span=(2, 2))
    encoder = Encoder(Letters(), 6, [long])
    found = encoder.encode(long)
    assert (found.pieces, found.places, found.targets) == ([0, 4, 5, 6, 7, 1], [1, 3], [0, 1])
    assert encoder.encode(asks) is None
    whole = Encoder(Letters(), 11, [asks]).encode(asks)
    assert (whole.places, whole.targets, whole.first_of_other) == ([4, 6, 8], [2, 2], 4)


def test_an_answer_ends_where_it_begins_or_later():
    begin, end = torch.tensor([0.0, 5.0, 0.0]), torch.tensor([9.0, 0.0, 3.0])
    assert _best_span(begin, end, 3) == [0, 0]
    assert _best_span(begin, torch.tensor([2.0, 0.0, 3.0]), 3) == [1, 2]
    assert _best_span(begin, torch.tensor([2.0, 0.0, 3.0]), 1) == [1, 1]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{", "line 1"),
        ("[1]", "a list is no object"),
        ('{"text": "a"}', "there is no 'label'"),
        ('{"words": ["a"], "tags": []}', "1 words have 0 tags"),
        ('{"question": "a", "context": "b c", "answer": "d"}', "does not stand in the context"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path, row, words):
    (tmp_path / "rows.jsonl").write_text(row + "\n")
    with pytest.raises(DataError, match=words):
        read_examples(tmp_path / "rows.jsonl")


def test_files_that_do_not_go_together_are_refused(folder, encoder_run, tmp_path):
    rows = {
        "empty": "",
        "pairs": '{"first": "a", "second": "b", "label": "x"}\n',
        "other": '{"words": ["seed"], "tags": ["strange"]}\n',
        "one": '{"words": ["seed"], "tags": ["long"]}\n',
    }
    for name, text in rows.items():
        (tmp_path / f"{name}.jsonl").write_text(text)
    train, few = folder / "train.jsonl", {"num_seeds": 2, "how": Fit(steps=1)}
    for first, second, words in (
        ("empty", train, "is empty"),
        (train, "pairs", "of the kind pair"),
        (train, "other", "no label of"),
        ("one", train, "has one label alone"),
    ):
        pair = tuple(one if isinstance(one, Path) else tmp_path / f"{one}.jsonl" for one in (first, second))
        with pytest.raises(DataError, match=words):
            probe(encoder_run, ["own"], files={"own": pair}, **few)
