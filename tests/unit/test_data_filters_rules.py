"""Each threshold of the quality filters, just inside and just outside its published value."""

import dataclasses
import math

import pytest

from data.filters import Rejected, TextFilters
from data.filters.c4 import C4
from data.filters.fineweb import FineWeb
from data.filters.gopher_quality import GopherQuality
from data.filters.gopher_repetition import GopherRepetition

KINDS = {kind.name: kind for kind in (GopherQuality, GopherRepetition, C4, FineWeb)}
LOOSE = {"min": 0, "max": math.inf}
LINE = "The cat and the dog have been to the sea."


def only(rule: str) -> TextFilters:
    """The filter of `rule` with no other threshold in force."""
    name, _, threshold = rule.partition(".")
    options = {
        f"{name}.{field.name}": LOOSE.get(field.name[:3], False)
        for field in dataclasses.fields(KINDS[name])
        if field.name not in (threshold, "short_line_chars")
    }
    return TextFilters([name], options)


def words(count: int, word: str = "the and") -> str:
    return " ".join((word.split() * count)[:count])


def lines(*counts_and_lines: int | str) -> str:
    pairs = zip(counts_and_lines[::2], counts_and_lines[1::2], strict=True)
    return "\n".join(line for count, line in pairs for line in [line] * count)


def filled(text: str, chars: int) -> str:
    """`text` and one long word, of `chars` characters together."""
    return text + " " + "z" * (chars - len(text) - 1)


def fewest(part: int, share: float) -> int:
    """The fewest characters of which `part` is not more than `share`."""
    return next(chars for chars in range(part, 10**6) if part / chars <= share)


REPEATED = {
    size: (f"{gram} 42 {gram}", 2 * size)
    for size in range(2, 11)
    for gram in [" ".join(f"{letter}{letter}" for letter in "abcdefghij"[:size])]
}
PARTS = {
    2: ("max_top_2gram_chars", 0.2, 2 * 5),
    3: ("max_top_3gram_chars", 0.18, 2 * 8),
    4: ("max_top_4gram_chars", 0.16, 2 * 11),
    **{
        size: (f"max_duplicate_{size}gram_chars", share, 2 * size)
        for size, share in zip(range(5, 11), (0.15, 0.14, 0.13, 0.12, 0.11, 0.10), strict=True)
    },
}

CASES = [
    ("gopher_quality.min_words", words(50), words(49)),
    ("gopher_quality.min_words", words(50) + " -- ! ,", words(49) + " -- ! ,"),
    ("gopher_quality.max_words", words(100_000), words(100_001)),
    ("gopher_quality.min_mean_word_chars", words(60), words(60) + " of"),
    ("gopher_quality.max_mean_word_chars", words(50, "abcdefghij"), words(50, "abcdefghij") + " abcdefghijk"),
    ("gopher_quality.max_symbol_word_ratio", words(90) + " #" * 10, words(89) + " #" * 10),
    ("gopher_quality.max_symbol_word_ratio", words(90) + " ..." * 10, words(89) + " ..." * 10),
    ("gopher_quality.max_symbol_word_ratio", words(90) + " …" * 10, words(89) + " …" * 10),
    ("gopher_quality.max_bullet_line_ratio", lines(9, " - a", 1, "b"), lines(10, "- a", 1, "b")),
    ("gopher_quality.max_bullet_line_ratio", lines(9, "•a", 1, "b"), lines(10, "\t• a", 1, "b")),
    ("gopher_quality.max_ellipsis_line_ratio", lines(3, "a... ", 7, "b."), lines(4, "a...", 7, "b..")),
    ("gopher_quality.max_ellipsis_line_ratio", lines(3, "a…", 7, "b"), lines(4, "a…", 7, "b")),
    ("gopher_quality.min_letter_word_ratio", words(80) + " 42" * 20, words(79) + " 42" * 20),
    ("gopher_quality.min_stop_words", "to be", "to To Be BE to"),
    ("gopher_repetition.max_duplicate_paragraphs", "\n\n".join("abcdefgggg"), "\n\n".join("abcdefgggggg")),
    ("gopher_repetition.max_duplicate_lines", "\n".join("abcdefgggg"), "\n\n".join("abcdefgggggg")),
    (
        "gopher_repetition.max_duplicate_paragraph_chars",
        "\n\n".join(["a" * 20, "a" * 20, "b" * 56]),
        "\n\n".join(["a" * 20, "a" * 20, "b" * 55]),
    ),
    (
        "gopher_repetition.max_duplicate_line_chars",
        "\n".join(["a" * 20, "a" * 20, "b" * 58]),
        "\n".join(["a" * 20, "a" * 20, "b" * 57]),
    ),
    *(
        (
            f"gopher_repetition.{threshold}",
            filled(REPEATED[size][0], fewest(part, share)),
            filled(REPEATED[size][0], fewest(part, share) - 1),
        )
        for size, (threshold, share, part) in PARTS.items()
    ),
    ("c4.min_sentences", "Aa bb. Cc dd! Ee ff? Gg hh. Ii jj.", "Aa bb. Cc dd! Ee ff? Gg hh... Ii jj."),
    ("c4.min_sentences", lines(5, "A b c"), lines(4, "A b c")),
    ("fineweb.min_line_punctuation_ratio", lines(3, "a.", 22, "b"), lines(3, "a.", 23, "b")),
    ("fineweb.min_line_punctuation_ratio", lines(3, "a。", 22, "b "), lines(3, "a. ", 22, "b")),
    ("fineweb.max_short_line_ratio", lines(67, "a" * 30, 33, "b" * 31), lines(68, "a" * 30, 32, "b" * 31)),
    (
        "fineweb.max_duplicate_line_chars",
        lines(2, "a" * 10, 1, "b" * 980),
        lines(2, "a" * 10, 1, "b" * 979),
    ),
    ("fineweb.max_line_feed_word_ratio", words(10) + "\n" * 3, words(9) + "\n" * 3),
]


@pytest.mark.parametrize(("rule", "inside", "outside"), CASES)
def test_a_threshold_holds_to_the_last_unit(rule, inside, outside):
    assert only(rule)([inside]) == [inside]
    verdict = only(rule)([outside])[0]
    assert isinstance(verdict, Rejected)
    assert verdict.reason == rule


def test_every_numeric_threshold_has_a_case():
    tested = {rule for rule, _, _ in CASES}
    tested |= {
        "c4.min_line_words",
        "c4.max_word_chars",
        "fineweb.short_line_chars",
    }  # tested by what they remove
    fields = {f"{name}.{field.name}" for name, kind in KINDS.items() for field in dataclasses.fields(kind)}
    assert {rule for rule in fields if not isinstance(default(rule), bool)} == tested


def default(rule: str) -> float | bool:
    name, _, threshold = rule.partition(".")
    return getattr(KINDS[name](), threshold)


@pytest.mark.parametrize(
    ("rule", "line", "left"),
    [
        ("c4.min_line_words", "Two words.", ""),
        ("c4.min_line_words", "Now three words.", "Now three words."),
        ("c4.max_word_chars", "a b " + "c" * 999 + ".", "a b " + "c" * 999 + "."),
        ("c4.max_word_chars", "a b " + "c" * 1000 + ".", ""),
        ("c4.terminal_punctuation", "No end here", ""),
        ("c4.terminal_punctuation", "Not really...", ""),
        ("c4.terminal_punctuation", "Open end…", ""),
        ("c4.terminal_punctuation", "  He asked 'why?'\t", "He asked 'why?'"),
        ("c4.remove_citations", "So[1] it [edit]is[citation needed] [a][].", "So it is [a]."),
        ("c4.remove_citations", "[12] So it is.", " So it is."),
        ("c4.remove_javascript", "Please enable JavaScript now.", ""),
        ("c4.remove_policy", "This site uses cookies.", ""),
        ("c4.remove_policy", "See our Privacy Policy here.", ""),
        ("c4.remove_policy", "The TERMS OF USE apply.", ""),
        ("c4.remove_policy", "We used the cookies.", "We used the cookies."),
    ],
)
def test_a_line_of_c4_is_kept_removed_or_edited(rule, line, left):
    text = f"{LINE}\r\n{line}\u2028{LINE}"
    expected = "\n".join([LINE, left, LINE] if left else [LINE, LINE])
    assert only(rule)([text]) == [expected]
    loose = only("c4.drop_lorem_ipsum")([text])
    assert loose == ["\n".join([LINE, line.strip(), LINE])]


@pytest.mark.parametrize(
    ("rule", "text"),
    [("c4.drop_lorem_ipsum", "Some Lorem Ipsum text."), ("c4.drop_curly_bracket", "Call it { now.")],
)
def test_a_phrase_in_a_kept_line_drops_the_page(rule, text):
    assert only(rule)([text])[0].reason == rule
    assert only(rule)(["Plain text."]) == ["Plain text."]
    # In a line that is removed anyway it does no harm.
    assert TextFilters(["c4"], {"c4.min_sentences": 0})([f"{LINE}\n{text[:-1]}"]) == [LINE]


def test_sentences_end_before_the_next_word_that_is_not_punctuation():
    counts = {
        'He said "No." and left.': 2,
        "Mr. Smith has $5.50, e.g. here.": 1,
        "One . . . two": 2,
        "Really?! Yes.) No": 3,
        "日本。 次。": 2,
    }
    for text, sentences in counts.items():
        assert TextFilters(["c4"], loosened(sentences))([text]) == [text]
        assert TextFilters(["c4"], loosened(sentences + 1))([text])[0].reason == "c4.min_sentences"


def loosened(sentences: int) -> dict[str, float | bool]:
    return {"c4.min_sentences": sentences, "c4.min_line_words": 0, "c4.terminal_punctuation": False}
