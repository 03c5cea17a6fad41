"""What the quality filters measure with: words, n-grams, lines, classes of characters."""

import re
import unicodedata
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.filters import code_points
from data.filters.english import exceptional_words
from data.filters.gopher_quality import _count_lines
from data.filters.gopher_repetition import count_duplicates
from data.filters.ngrams import covered_chars, repeated_ngram_chars, sum_words, top_ngram_chars
from data.filters.page import Page


def split(text: str) -> list[str]:
    return [text[start:end] for start, end in Page(text).words]


# What spaCy 3.8 says of them (spacy.blank("en")), the words parted by one space here.
SPLIT_BY_SPACY = {
    "don't": "do n't",
    "I'm can't he'll don’t": "I 'm ca n't he 'll do n’t",
    "cannot gonna 10am 5p.m.": "can not gon na 10 am 5 p.m.",
    "U.S. e.g. Mr. UK.": "U.S. e.g. Mr. UK .",
    "foo(bar)": "foo(bar )",
    "self.foo()": "self.foo ( )",
    "state-of-the-art": "state - of - the - art",
    "a--b --foo--": "a -- b --foo--",
    "$5 10km 10km. 5.5%": "$ 5 10 km 10 km . 5.5 %",
    "http://x.y/z": "http://x.y / z",
    "https://example.com/a-b?c=d": "https://example.com/a-b?c=d",
    "me@example.com": "me@example.com",
    "a/b km/h and/or": "a / b km / h and/or",
    "x=1 1-2 1+1": "x=1 1 - 2 1 + 1",
    "10,000. a,b": "10,000 . a , b",
    "(see Foo.bar, baz).": "( see Foo.bar , baz ) .",
    '"Hello," he': '" Hello , " he',
    "...and foo...bar": "... and foo ... bar",
    "what?! isn't.": "what ? ! is n't .",
    "it's 'quoted' Andy’s": "it 's ' quoted ' Andy ’s",
    "__init__ *args foo_bar": "_ _ init _ _ * args foo_bar",
    "<b>bold</b>": "< b > bold</b >",
    ":) :-( x:) ():": ":) :-( x :) ( ):",
    "id. wed": "i d. we d",
    "naïve-café": "naïve - café",
    "日本語。テスト 😀hi😀": "日本語。テスト 😀 hi 😀",
    "end.Start": "end . Start",
}


@pytest.mark.parametrize(("text", "words"), SPLIT_BY_SPACY.items())
def test_words_are_cut_as_spacy_cuts_them(text, words):
    assert split(text) == words.split(" ")


@given(st.text(st.sampled_from("aB1.,-'’s/:@# \n\u3000$%(é日😀…+=[]nt"), max_size=60))
@settings(max_examples=500, deadline=None)
def test_words_hold_every_character_but_white_space(text):
    assert "".join(split(text)) == "".join(text.split())
    assert all(words and not any(map(str.isspace, words)) for words in split(text))


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_text_is_cut(text):
    assert "".join(split(text)) == "".join(text.split())


def test_every_exceptional_word_is_cut_as_listed():
    exceptions = dict(exceptional_words())
    for degree in ("°c.", "°f.", "°k."):  # cut, and then "c." is put together again
        assert exceptions.pop(degree) != tuple(split(degree))
    assert {string: tuple(split(string)) for string in exceptions} == exceptions
    assert exceptions["shouldn't've"] == ("should", "n't", "'ve")
    assert "were" not in exceptions


def test_classes_are_pythons():
    classes = code_points.code_point_classes()
    for bit, predicate in (
        (code_points.SPACE, str.isspace),
        (code_points.LETTER, str.isalpha),
        (code_points.DECIMAL, str.isdecimal),
        (code_points.PUNCTUATION, lambda character: unicodedata.category(character).startswith("P")),
        (code_points.LINE_BREAK, lambda character: len(f"a{character}b".splitlines()) == 2),
    ):
        wrong = [
            hex(code) for code in range(0x110000) if bool(classes[code] & bit) != bool(predicate(chr(code)))
        ]
        assert wrong == []


WORDS = st.lists(st.sampled_from(["a", "b", "ab", "é", "日"]), max_size=40)


@given(WORDS, st.integers(1, 6))
@settings(max_examples=300, deadline=None)
def test_ngrams_are_counted_as_by_hand(words, size):
    page = Page(" ".join(words))
    assert split(page.text) == words
    sums = sum_words(page.codes, page.words)
    ngrams = [tuple(words[at : at + size]) for at in range(len(words) - size + 1)]
    top = max(Counter(ngrams).items(), key=lambda item: item[1], default=((), 0))
    assert top_ngram_chars(*sums, size) == (len(" ".join(top[0])) * top[1])
    seen, repeated, at, covered = set(), 0, 0, set()
    while at < len(ngrams):
        if ngrams[at] in seen:
            repeated += len("".join(ngrams[at]))
            at += size
        else:
            seen.add(ngrams[at])
            at += 1
    assert repeated_ngram_chars(*sums, size) == repeated
    for at, ngram in enumerate(ngrams):
        if ngram in ngrams[:at]:
            covered |= set(range(at, at + size))
    assert covered_chars(*sums, size) == sum(len(words[at]) for at in covered)
    assert all(repeated_ngram_chars(*sums, longer) <= covered_chars(*sums, size) for longer in range(size, 9))


@given(st.text(st.sampled_from("ab\n\n\n\r"), max_size=40), st.integers(1, 3))
@settings(max_examples=300, deadline=None)
def test_repeated_segments_are_counted_as_by_hand(text, line_feeds):
    seen, duplicates, chars = set(), 0, 0
    segments = re.split("\n{%d,}" % line_feeds, text)  # noqa: UP031
    for segment in segments:
        duplicates += segment in seen
        chars += len(segment) if segment in seen else 0
        seen.add(segment)
    codes = Page(text).codes
    assert count_duplicates(codes, 0, len(codes), line_feeds) == (len(segments), duplicates, chars)


@given(st.text(st.sampled_from("a #•-.….\n\r\u2028\t"), max_size=40))
@settings(max_examples=300, deadline=None)
def test_lines_are_counted_as_python_does(text):
    lines = text.splitlines()
    assert _count_lines(Page(text).codes, code_points.code_point_classes()) == (
        text.count("#"),
        text.count("...") + text.count("…"),
        len(lines),
        sum(line.lstrip().startswith(("•", "-")) for line in lines),
        sum(line.rstrip().endswith(("...", "…")) for line in lines),
    )


def test_the_code_points_are_those_of_the_text():
    assert Page("a日😀").codes.tolist() == [0x61, 0x65E5, 0x1F600]
    assert Page.of_codes(np.array([0x61, 0xD800], dtype=np.uint32)).text == "a\ud800"
