"""The quality rules of FineWeb: lists and scraps of lines are dropped.

Penedo et al. 2024, "The FineWeb Datasets: Decanting the Web for the Finest Text Data at Scale"
(arXiv:2406.17557), section 3.6; details follow datatrove 0.10.1. Lines are parted by line feeds, and blank
ones do not count.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from data.filters.code_points import SPACE, STOP, code_point_classes
from data.filters.compiled import kernel
from data.filters.hashing import find_slot, new_table, string_hash
from data.filters.page import Page
from data.filters.verdict import Measure, Rejected, first_beyond


@dataclass(frozen=True)
class FineWeb:
    """Keeps a page that no threshold excludes."""

    name: ClassVar[str] = "fineweb"

    min_line_punctuation_ratio: float = 0.12
    """Share of lines that end with the end of a sentence."""
    max_short_line_ratio: float = 0.67
    """Share of lines that are short."""
    short_line_chars: float = 30
    """Characters of a short line at most."""
    max_duplicate_line_chars: float = 0.01
    """Share of characters that stand in lines that occurred before."""
    max_line_feed_word_ratio: float = 0.3

    def __call__(self, page: Page) -> Page | Rejected:
        lines = _count_lines(page.codes, code_point_classes(), float(self.short_line_chars))
        if lines[0] == 0:
            return Rejected(f"{self.name}.empty", "no line that is not blank")
        return first_beyond(self.name, self, _measures(page, *lines)) or page


def _measures(
    page: Page, lines: int, stopped: int, short: int, duplicate_chars: int, line_feeds: int
) -> Iterator[Measure]:
    chars = len(page.codes) - line_feeds
    yield Measure("min_line_punctuation_ratio", stopped / lines, "share of lines that end a sentence")
    yield Measure("max_short_line_ratio", short / lines, "share of short lines")
    yield Measure(
        "max_duplicate_line_chars", duplicate_chars / chars, "share of characters in repeated lines"
    )
    yield Measure("max_line_feed_word_ratio", line_feeds / len(page.words), "line feeds to words")


@kernel
def _count_lines(
    codes: NDArray[np.uint32], classes: NDArray[np.uint32], short_line_chars: float
) -> tuple[int, int, int, int, int]:
    """Lines, those that end a sentence, short ones, characters of those that occurred before; line feeds."""
    line_feeds = 0
    for place in range(len(codes)):
        line_feeds += codes[place] == ord("\n")
    keys = new_table(line_feeds + 1)
    lines, stopped, short, duplicate_chars, start = 0, 0, 0, 0, 0
    while start < len(codes):
        end, blank = start, True
        while end < len(codes) and codes[end] != ord("\n"):
            blank = blank and classes[codes[end]] & SPACE != 0
            end += 1
        if not blank:
            lines += 1
            stopped += classes[codes[end - 1]] & STOP != 0
            short += end - start <= short_line_chars
            key = string_hash(codes, start, end)
            slot = find_slot(keys, key)
            if keys[slot] == 0:
                keys[slot] = key
            else:
                duplicate_chars += end - start
        start = end + 1
    return lines, stopped, short, duplicate_chars, line_feeds
