"""Tasks: what is asked, of whom, and what counts as right."""

import heapq
from dataclasses import replace
from pathlib import Path

import pytest
from test_evals_scoring import Letters

from evals.scoring import Scorer, SpanScore
from evals.task_results import read_scores, write_scores
from evals.tasks import TaskItem, load_task, running, task_names
from evals.tasks.definition import parse_task
from evals.tasks.doctests import is_passed_by_its_own_body
from evals.tasks.items import checked, items_digest
from evals.tasks.local import BUILDERS, Text, built
from evals.tasks.prompts import drawn_examples
from evals.tasks.running import extracted, prepared, run
from models.generation import Completion
from seedbed.errors import ConfigError, DataError
from training.rl.outcomes import Reward

CHOICE = 'kind = "multiple-choice"\n[items]\nbuild = "cloze"\n[prompt]\ncontext = "{question}"\n'
GENERATE = 'kind = "generate"\n[items]\nbuild = "text"\n[prompt]\ncontext = "{question}"\n[generation]\n'


def task(text: str):
    return parse_task(text, "my.toml", "my", "")


class Likes:
    """A model that finds continuations with many of a letter likely, and writes what it is told to."""

    context = 200

    def __init__(self, letter: str = "z", answers: tuple[str, ...] = ()) -> None:
        self.token, self.answers, self.seen = Letters().encode(letter)[0], answers, []

    def score(self, spans, preamble=0, advance=None):
        self.seen += spans
        return [SpanScore(span.continuation.count(self.token) - 9.0, False) for span in spans]

    def complete(self, requests, advance=None):
        self.seen += requests
        texts = [self.answers[number % len(self.answers)] for number in range(len(requests))]
        return [Completion(list(map(ord, text)), [0.0] * len(text), "stop") for text in texts]


class Plain(Letters):
    """Each character its own code."""

    def encode(self, text: str) -> list[int]:
        return list(map(ord, text))

    def decode(self, ids) -> str:
        return "".join(map(chr, ids))


def question(number: int, answer: int = 1, **changes) -> TaskItem:
    item = TaskItem(
        f"q{number}", {"question": f"Q{number}? "}, ("abc", "zzz", "d"), answer, document=f"d{number}"
    )
    return replace(item, **changes)


def test_accuracy_counts_the_likeliest_choice_whole_and_per_byte():
    """Accuracy would be of another rule than the one that was asked for."""
    items = [question(0), question(1, 0), question(2, 2)]
    result, scores = run(prepared(task(CHOICE), items), Scorer(Likes(), Letters()))
    assert [row["log_likelihoods"] for row in scores.rows] == [[-9.0, -6.0, -9.0]] * 3
    metrics = result["metrics"]
    assert metrics["accuracy"]["value"] == result["value"] == pytest.approx(1 / 3)
    assert result["low"] < 1 / 3 < result["high"]
    # -9 over three bytes, -6 over three, -9 over one.
    assert metrics["accuracy_per_byte"]["value"] == pytest.approx(1 / 3)
    nothing = Likes("?")
    result, _ = run(
        prepared(task(CHOICE + "per_byte = true\n"), [question(3, 0)]), Scorer(nothing, Letters())
    )
    # Two are as likely for each byte, and share the item.
    assert result["value"] == 0.5


def test_every_result_says_of_which_items_it_is(tmp_path: Path):
    """Two results would be compared that are of different questions."""
    items = [question(number) for number in range(6)]
    digest = items_digest(items)
    assert digest != items_digest(items[:5])
    assert digest != items_digest([*items[:5], question(5, choices=("abc", "zzz", "e"))])
    whole, scores = run(prepared(task(CHOICE), items), Scorer(Likes(), Letters()))
    shown, _ = run(prepared(task(CHOICE), items, num_fewshot=2), Scorer(Likes(), Letters()))
    assert whole["items"] == digest != shown["items"]
    assert (shown["num_items"], shown["num_examples"]) == (4, 2)
    write_scores(tmp_path / "items.jsonl", scores)
    found = read_scores(tmp_path / "items.jsonl", digest)
    assert [row["cluster"] for row in found.rows] == [f"d{number}" for number in range(6)]
    assert found.rows[0]["log_likelihoods"] == [-9.0, -6.0, -9.0]
    assert found == scores


def test_examples_are_drawn_once_shown_with_answers_and_never_asked():
    """An item would see its own answer, or each item other examples, and nothing could be reused."""
    items = [question(number) for number in range(8)]
    shown, left = drawn_examples(task(CHOICE), items, None, 3)
    assert shown.count("zzz\n\n") == 3
    assert len(left) == 5
    assert all(item.fields["question"] not in shown for item in left)
    assert drawn_examples(task(CHOICE), items, None, 3)[0] == shown
    assert shown.startswith(drawn_examples(task(CHOICE), items, None, 2)[0])
    assert drawn_examples(task(CHOICE + "[few_shot]\nseed = 5\n"), items, None, 3)[0] != shown
    model = Likes()
    run(prepared(task(CHOICE), items, num_fewshot=3), Scorer(model, Plain()))
    assert {"".join(map(chr, span.context))[: len(shown)] for span in model.seen} == {shown}
    with pytest.raises(ConfigError, match="8 examples"):
        drawn_examples(task(CHOICE), items, None, 8)
    assert len(drawn_examples(task(CHOICE), items, items, 8)[1]) == 8


def test_choices_with_letters_are_scored_by_letter():
    """A task in the form of MMLU would score the texts of its choices."""
    model = Likes("B")
    lettered = CHOICE.replace("{question}", "{question}{choices}") + 'answer = " {letter}"\n'
    result, _ = run(prepared(task(lettered), [question(0)]), Scorer(model, Plain()))
    assert ["".join(map(chr, span.continuation)) for span in model.seen] == [" A", " B", " C"]
    assert "A. abc\nB. zzz\nC. d" in "".join(map(chr, model.seen[0].context))
    assert result["value"] == 1


def test_reasoning_ends_in_an_answer_and_several_samples_vote():
    """The last number of a text, or the first one given, would pass for the answer."""
    items = [TaskItem("a", {"question": "2+3?"}, references=("5",))]
    voting = GENERATE + "samples = 3\ntemperature = 1.0\npattern = 'answer is (\\d+)'\njudged_by = 'number'\n"
    model = Likes(answers=("2 and 3, so the answer is 5.", "the answer is 6", "8. The answer is 5, not 7"))
    result, scores = run(prepared(task(voting), items), Scorer(model, Plain()))
    (row,) = scores.rows
    assert row["answers"] == ["5", "6", "5"]
    assert (row["samples"], row["passed"]) == (3, 2)
    assert (row["prediction"], result["value"]) == ("5", 1)
    assert len({request.seed for request in model.seen}) == 3
    assert extracted("none", "answer is (.*)") is None
    assert extracted("a 1 b 2", r"\d") == "2"


def test_code_is_right_when_its_tests_come_to_their_end():
    """A body that looks right would count, or one that was never run."""
    item = TaskItem(
        "f", {"question": "def f(x):\n"}, tests=("assert f(2) == 4", "assert f(3) == 6"),
        around=("def f(x):\n", "\n"), references=("    return 2 * x\n",),
    )  # fmt: skip
    assert is_passed_by_its_own_body(item)
    judged = GENERATE + "judged_by = 'unit-tests'\nmax_tokens = 50\n"
    for body, right in (("    return x + x", 1), ("    return 4", 0), ("    return (", 0)):
        result, _ = run(prepared(task(judged), [item]), Scorer(Likes(answers=(body,)), Plain()))
        assert result["value"] == right


def test_repeated_items_are_counted_and_impossible_ones_refused():
    """An item that comes twice would count twice; one without choices would be free."""
    kept, repeated = checked([question(0), question(0, id="again"), question(1)], "o", "multiple-choice")
    assert ([item.id for item in kept], repeated) == (["q0", "q1"], 1)
    for changes, said in (
        ({"choices": ("a", "")}, "choice 1 of item 'q0' is empty"),
        ({"choices": ()}, "item 'q0' has 0 choices"),
        ({"answer": 3}, "the answer of item 'q0' is choice 3, of 3"),
    ):
        with pytest.raises(DataError, match=said):
            checked([question(0, **changes)], "o", "multiple-choice")
    with pytest.raises(DataError, match="two items are called 'q0'"):
        checked([question(0), question(1, id="q0")], "o", "multiple-choice")
    with pytest.raises(DataError, match="no item"):
        checked([], "o", "generate")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (CHOICE.replace("[prompt]", "[promt]"), r"my.toml:4: promt: Extra"),
        (CHOICE + "per_bite = true\n", r"my.toml:6: prompt.per_bite: Extra"),
        (CHOICE + "per_byte = 3\n", r"my.toml:6: prompt.per_byte: .*boolean"),
        (CHOICE.replace("multiple-choice", "quiz"), r"my.toml:1: kind: .*'multiple-choice'"),
        (CHOICE.replace('build = "cloze"', "num = 3"), r"my.toml:2: items.build: name either"),
        (CHOICE + "[few_shot]\nnum = -1\n", r"my.toml:7: few_shot.num: "),
        (GENERATE + "pattern = '('\n", r"my.toml:6: generation.*no regular expression"),
        (CHOICE + "context =", r"my.toml is not valid TOML: .*end of document"),
        ('[items]\nbuild = "text"\n', r"my.toml:1: kind: Field required"),
    ],
)  # fmt: skip
def test_a_malformed_task_file_is_told_by_file_line_and_field(text, said):
    """A user would search a file for an error that is known exactly."""
    with pytest.raises(ConfigError, match=said):
        task(text)


def test_a_template_that_names_no_field_says_which_there_are():
    """A prompt would show the model a pair of braces."""
    wrong = task(CHOICE.replace("{question}", "{qestion}"))
    with pytest.raises(ConfigError, match=r"prompt.context: \{qestion\} is no field") as error:
        run(prepared(wrong, [question(0)]), Scorer(Likes(), Letters()))
    assert "question" in error.value.fix
    # What an item says is not a template.
    braces = question(0, fields={"question": "{choices} {x}"})
    run(prepared(task(CHOICE), [braces]), Scorer(Likes(), Letters()))


def modules() -> list[Text]:
    """Some of the standard library, of four packages and more."""
    import asyncio
    import email.message
    import json.decoder
    import logging.handlers
    import statistics
    import unittest.case

    found = [asyncio.tasks, json.decoder, email.message, logging.handlers, unittest.case, statistics]
    paths = [Path(module.__file__) for module in found]
    return [Text(f"{p.parent.name}/{p.name}", f"{p.parent.name}/{p.name}", p.read_text()) for p in paths]


@pytest.mark.parametrize("name", [name for name in BUILDERS if name not in ("text", "doctests")])
def test_local_items_have_one_answer_and_distractors_of_the_same_source(name):
    """Topic, or a choice that is the answer too, would decide."""
    texts = modules()
    items = built(name, texts, 0, 100)
    assert len(items) >= 3
    assert items == built(name, texts, 0, 100) != built(name, texts, 1, 100)
    assert {item.answer for item in items} > {0} or len(items) < 8
    by_id = {text.id: text for text in texts}
    for item in items:
        assert len(set(item.choices)) == 4
        own = by_id[item.document]
        if name in ("next-passage", "next-sentence"):
            assert item.fields["context"] + item.choices[item.answer] in own.text
        if name == "cloze":
            assert item.fields["context"] + item.choices[item.answer] in own.text
            assert sum(item.fields["context"] + choice in own.text for choice in item.choices) == 1
        if name == "package":
            assert item.choices[item.answer] == own.package
    shared = built(name, texts[:3], 0, 100) if name not in ("package", "function-body") else []
    assert {item.id for item in shared} <= {f"{text.id}#{n}" for text in texts[:3] for n in range(5)}


def test_functions_of_the_standard_library_pass_their_own_examples():
    """A model would be judged by tests that nobody can pass."""
    wrong = 'def f(x):\n    """\n    >>> f(1)\n    2\n    """\n    return x\n'
    texts = [Text("heapq.py", "heapq.py", Path(heapq.__file__).read_text()), Text("wrong", "wrong", wrong)]
    items = built("doctests", texts, 0, 5)
    assert [item.id for item in items] == ["heapq.py#merge"]
    broken = replace(items[0], references=("    return None\n",))
    assert not is_passed_by_its_own_body(broken)


def test_every_shipped_task_can_be_read():
    """A task that the list names would end in an error."""
    assert {"cloze", "next-passage", "stdlib-text", "function-completion"} <= set(task_names())
    for name in task_names():
        assert load_task(name).description


def test_scores_that_could_not_be_found_out_are_not_zero(monkeypatch):
    """A sandbox that did not start would count against the model."""
    items = [TaskItem("f", {"question": "def f(x):\n"}, tests=("assert f(2) == 4",))]
    judged = GENERATE + "judged_by = 'unit-tests'\nmax_tokens = 50\n"
    failed = Reward(failure="crashed", detail="the sandbox did not start")
    monkeypatch.setattr(running, "unit_tests", lambda *_: failed)
    result, scores = run(prepared(task(judged), items), Scorer(Likes(answers=("    return 4",)), Plain()))
    assert (result["value"], result["num_failed"], scores.rows[0]["is_judged"]) == (None, 1, False)
