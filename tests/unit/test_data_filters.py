"""The quality filters together: names and options, order, what they decide beside datatrove."""

import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.config import FILTERS
from data.filters import Rejected, TextFilters
from data.filters.compiled import kernel
from seedbed.errors import ConfigError, DataError

PARITY = Path(__file__).parent.parent / "golden" / "filter_parity.json"
SENTENCE = "The old gardener and his sister have walked to the end of the long green valley with a lamp. "


def answer(text: str, verdict: str | Rejected) -> str:
    if isinstance(verdict, Rejected):
        return verdict.reason
    return "kept" if verdict == text else "edited:" + hashlib.sha256(verdict.encode()).hexdigest()


@pytest.mark.parametrize("name", [*FILTERS, "all"])
def test_every_document_of_the_table_is_judged_as_datatrove_does(name):
    filters = TextFilters(FILTERS if name == "all" else [name])
    rows = json.loads(PARITY.read_text(encoding="utf-8"))["documents"]
    texts = [row["text"] for row in rows]
    assert len({row[name] for row in rows}) >= 4  # the table holds several kinds of verdict
    assert [answer(text, verdict) for text, verdict in zip(texts, filters(texts), strict=True)] == [
        row[name] for row in rows
    ]


def test_the_first_filter_that_rejects_decides():
    text = "Too short { of course."
    assert TextFilters(["gopher_quality", "c4"])([text])[0].reason == "gopher_quality.min_words"
    assert TextFilters(["c4", "gopher_quality"])([text])[0].reason == "c4.drop_curly_bracket"


def test_a_later_filter_judges_what_an_earlier_one_left():
    text = "\n".join([SENTENCE.strip()] * 5 + ["menu"] * 20)
    assert TextFilters(["fineweb"])([text])[0].reason == "fineweb.max_short_line_ratio"
    options = {"fineweb.max_duplicate_line_chars": 1}
    assert TextFilters(["c4", "fineweb"], options)([text]) == ["\n".join([SENTENCE.strip()] * 5)]


def test_a_rejection_says_what_was_measured():
    assert TextFilters(["gopher_quality"])([SENTENCE * 2])[0] == Rejected(
        "gopher_quality.min_words", "words 38, at least 50"
    )


def test_without_filters_every_text_is_kept():
    assert TextFilters([])(["", "a"]) == ["", "a"]


@pytest.mark.parametrize("text", ["", " ", "\n\n", "word", "\u3000", "\0", "...", "😀", "\ud800", "#"])
def test_texts_of_next_to_nothing_are_judged(text):
    for name in FILTERS:
        verdict = TextFilters([name])([text])[0]
        assert isinstance(verdict, Rejected) or (verdict == text and name == "gopher_repetition")
    assert isinstance(TextFilters(FILTERS)([text])[0], Rejected)


def test_a_text_whose_lines_are_all_removed_is_rejected():
    assert TextFilters(["c4"], {"c4.min_sentences": 0})(["menu\nhome"]) == [
        Rejected("c4.empty", "no line is kept")
    ]


@given(
    st.lists(st.sampled_from([SENTENCE, "\n", "\n\n", "- ", "…", "[1]", "{", "x", " ", "é。", "\r\n", "#"]))
)
@settings(max_examples=200, deadline=None)
def test_judging_again_what_was_kept_or_judging_in_a_batch_changes_nothing(pieces):
    text = "".join(pieces)
    for name in FILTERS:
        filters = TextFilters([name], {"gopher_quality.min_words": 1} if name == "gopher_quality" else {})
        alone = filters([text])[0]
        assert filters([SENTENCE, text, ""])[1] == alone


def test_another_process_decides_alike(tmp_path):
    rows = json.loads(PARITY.read_text(encoding="utf-8"))["documents"]
    script = (
        "import json, sys; from data.filters import TextFilters; from data.config import FILTERS;"
        "rows = json.load(open(sys.argv[1]))['documents'];"
        "print(json.dumps(TextFilters(FILTERS)([row['text'] for row in rows])))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, str(PARITY)],
        capture_output=True,
        check=True,
        text=True,
        cwd=tmp_path,
    )
    here = TextFilters(FILTERS)([row["text"] for row in rows])
    assert json.loads(done.stdout) == json.loads(json.dumps(here))


def test_the_description_holds_every_threshold_in_force():
    described = TextFilters(["c4", "fineweb"], {"c4.min_sentences": 3, "c4.remove_policy": False}).describe()
    assert [each["name"] for each in described["filters"]] == ["c4", "fineweb"]
    assert described["filters"][0]["thresholds"]["min_sentences"] == 3
    assert described["filters"][0]["thresholds"]["remove_policy"] is False
    assert described["filters"][1]["thresholds"]["min_line_punctuation_ratio"] == 0.12
    assert json.loads(json.dumps(described)) == described


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        (["gopher_qualty"], {}, ["gopher_qualty", 'did you mean "gopher_quality"']),
        (["c4", "c4"], {}, ["twice"]),
        (["c4"], {"c4.min_sentence": 3}, ["c4.min_sentence", "c4.min_sentences"]),
        (["c4"], {"fineweb.short_line_chars": 3}, ["fineweb.short_line_chars", "c4"]),
        (["c4"], {"c4.min_sentences": True}, ["c4.min_sentences", "a number"]),
        (["c4"], {"c4.remove_policy": 1}, ["c4.remove_policy", "true or false"]),
        (["c4"], {"c4.min_sentences": math.nan}, ["c4.min_sentences", "a number"]),
    ],
)
def test_a_wrong_name_or_option_is_named_with_what_was_meant(names, options, words):
    with pytest.raises(ConfigError) as error:
        TextFilters(names, options)
    assert all(word in str(error.value) for word in words)


def test_without_numba_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(DataError, match=r"seedbed\[filters\]"):
        kernel(answer)
