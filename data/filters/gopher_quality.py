"""The quality rules of Gopher: documents that do not look like English prose are dropped.

Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training Gopher"
(arXiv:2112.11446), appendix A.1.1. What the paper leaves open follows datatrove 0.10.1: words of
punctuation alone do not count for the number of words and their mean length; stop words are counted in
lower case, each once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from data.filters.code_points import LETTER, LINE_BREAK, SPACE, SYMBOL, code_point_classes
from data.filters.compiled import kernel
from data.filters.page import Page
from data.filters.verdict import Measure, Rejected, first_beyond

Codes = NDArray[np.uint32]

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")

_DOT, _ELLIPSIS, _HASH, _BULLET, _HYPHEN = ord("."), ord("…"), ord("#"), ord("•"), ord("-")


@dataclass(frozen=True)
class GopherQuality:
    """Keeps a page that no threshold excludes."""

    name: ClassVar[str] = "gopher_quality"

    min_words: float = 50
    max_words: float = 100_000
    min_mean_word_chars: float = 3
    max_mean_word_chars: float = 10
    max_symbol_word_ratio: float = 0.1
    """Number signs to words, and ellipses to words."""
    max_bullet_line_ratio: float = 0.9
    """Share of lines that start with a bullet or a hyphen."""
    max_ellipsis_line_ratio: float = 0.3
    """Share of lines that end with an ellipsis."""
    min_letter_word_ratio: float = 0.8
    """Share of words that hold a letter."""
    min_stop_words: float = 2
    """Different words among the, be, to, of, and, that, have, with."""

    def __call__(self, page: Page) -> Page | Rejected:
        return first_beyond(self.name, self, _measures(page)) or page


def _measures(page: Page) -> Iterator[Measure]:
    classes = code_point_classes()
    real, chars, with_letter, stop_words = _count_words(page.codes, classes, page.words, _STOP_WORD_KEYS)
    yield Measure("min_words", real, "words")
    yield Measure("max_words", real, "words")
    if real:
        yield Measure("min_mean_word_chars", chars / real, "mean characters of a word")
        yield Measure("max_mean_word_chars", chars / real, "mean characters of a word")
    if len(page.words) == 0:
        return
    num_words = len(page.words)
    hashes, ellipses, lines, bullets, cut_short = _count_lines(page.codes, classes)
    yield Measure("max_symbol_word_ratio", hashes / num_words, "number signs to words")
    yield Measure("max_symbol_word_ratio", ellipses / num_words, "ellipses to words")
    yield Measure("max_bullet_line_ratio", bullets / lines, "share of lines with a bullet")
    yield Measure("max_ellipsis_line_ratio", cut_short / lines, "share of lines that end with an ellipsis")
    yield Measure("min_letter_word_ratio", with_letter / num_words, "share of words with a letter")
    yield Measure("min_stop_words", stop_words, "different stop words")


@kernel
def _count_words(
    codes: Codes, classes: Codes, words: NDArray[np.int32], stop_words: NDArray[np.int64]
) -> tuple[int, int, int, int]:
    """Words that are not punctuation alone, their characters, words with a letter, different stop words."""
    real, chars, with_letter, seen = 0, 0, 0, 0
    for word in range(len(words)):
        start, end = words[word, 0], words[word, 1]
        every, some, key = SYMBOL, 0, 0
        for place in range(start, end):
            of_code = classes[codes[place]]
            every &= of_code
            some |= of_code
        if not every:
            real += 1
            chars += end - start
        if some & LETTER:
            with_letter += 1
        if 2 <= end - start <= 4:
            for place in range(start, end):
                key = key << 8 | min(codes[place], 255)
            for stop_word in range(len(stop_words)):
                if key == stop_words[stop_word]:
                    seen |= 1 << stop_word
    stop_count = 0
    while seen:
        stop_count += seen & 1
        seen >>= 1
    return real, chars, with_letter, stop_count


@kernel
def _count_lines(codes: Codes, classes: Codes) -> tuple[int, int, int, int, int]:
    """Number signs, ellipses, lines, lines that start with a bullet, lines that end with an ellipsis."""
    hashes, ellipses, lines, bullets, cut_short = 0, 0, 0, 0, 0
    start, dots = 0, 0
    while start < len(codes):
        first, last, place = -1, -1, start
        while place < len(codes):
            code = codes[place]
            of_code = classes[code]
            dots = dots + 1 if code == _DOT else 0
            if code == _HASH:
                hashes += 1
            elif code == _ELLIPSIS or dots == 3:
                ellipses += 1
                dots = 0
            if of_code & LINE_BREAK:
                break
            if not of_code & SPACE:
                last = place
                if first < 0:
                    first = place
            place += 1
        lines += 1
        if first >= 0 and (codes[first] == _BULLET or codes[first] == _HYPHEN):
            bullets += 1
        if last >= 0 and codes[last] == _ELLIPSIS:
            cut_short += 1
        elif (
            last >= start + 2 and codes[last] == _DOT and codes[last - 1] == _DOT and codes[last - 2] == _DOT
        ):
            cut_short += 1
        start = place + 1
        if place + 1 < len(codes) and codes[place] == ord("\r") and codes[place + 1] == ord("\n"):
            start += 1
    return hashes, ellipses, lines, bullets, cut_short


_STOP_WORD_KEYS = np.array([int.from_bytes(word.encode("ascii"), "big") for word in STOP_WORDS])
