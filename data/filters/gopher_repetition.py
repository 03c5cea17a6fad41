"""The repetition rules of Gopher: documents that say the same again and again are dropped.

Rae et al. 2021 (arXiv:2112.11446), appendix A.1.1 and table A1. What the paper leaves open follows
datatrove 0.10.1: shares are of all characters of the document; lines are parted by runs of line feeds and
paragraphs by runs of two or more; n-grams are of words as `words` cuts them. It differs from datatrove
where two runs of words have the same letters but other gaps ("a bc", "ab c"): these are different n-grams
here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from data.filters.compiled import kernel
from data.filters.hashing import find_slot, new_table, string_hash
from data.filters.ngrams import covered_chars, repeated_ngram_chars, sum_words, top_ngram_chars
from data.filters.page import Page
from data.filters.verdict import Measure, Rejected, first_beyond

_TOP_SIZES = (2, 3, 4)
_REPEATED_SIZES = (5, 6, 7, 8, 9, 10)


@dataclass(frozen=True)
class GopherRepetition:
    """Keeps a page that no threshold excludes."""

    name: ClassVar[str] = "gopher_repetition"

    max_duplicate_paragraphs: float = 0.3
    """Share of paragraphs that occurred before."""
    max_duplicate_paragraph_chars: float = 0.2
    max_duplicate_lines: float = 0.3
    """Share of lines that occurred before."""
    max_duplicate_line_chars: float = 0.2
    max_top_2gram_chars: float = 0.2
    """Share of characters that stand in the most frequent n-gram."""
    max_top_3gram_chars: float = 0.18
    max_top_4gram_chars: float = 0.16
    max_duplicate_5gram_chars: float = 0.15
    """Share of characters that stand in n-grams that occurred before."""
    max_duplicate_6gram_chars: float = 0.14
    max_duplicate_7gram_chars: float = 0.13
    max_duplicate_8gram_chars: float = 0.12
    max_duplicate_9gram_chars: float = 0.11
    max_duplicate_10gram_chars: float = 0.1

    def __call__(self, page: Page) -> Page | Rejected:
        if not page.text:
            return Rejected(f"{self.name}.empty", "no text")
        least = min(getattr(self, f"max_duplicate_{size}gram_chars") for size in _REPEATED_SIZES)
        return first_beyond(self.name, self, _measures(page, least)) or page


def _measures(page: Page, least: float) -> Iterator[Measure]:
    """In datatrove's order. `least` is the lowest share of characters in repeated n-grams that matters."""
    codes, num_chars = page.codes, len(page.codes)
    start = num_chars - len(page.text.lstrip())
    end = max(len(page.text.rstrip()), start)
    for what, line_feeds, span in (("paragraph", 2, (start, end)), ("line", 1, (0, num_chars))):
        if "\n" * line_feeds not in page.text:
            continue
        count, duplicates, chars = count_duplicates(codes, *span, line_feeds)
        yield Measure(f"max_duplicate_{what}s", duplicates / count, f"share of repeated {what}s")
        yield Measure(
            f"max_duplicate_{what}_chars", chars / num_chars, f"share of characters in repeated {what}s"
        )
    sums = sum_words(codes, page.words)
    for size in _TOP_SIZES:
        chars = top_ngram_chars(*sums, size)
        yield Measure(
            f"max_top_{size}gram_chars", chars / num_chars, f"share of characters in the top {size}-gram"
        )
    if covered_chars(*sums, _REPEATED_SIZES[0]) / num_chars <= least:
        return
    for size in _REPEATED_SIZES:
        chars = repeated_ngram_chars(*sums, size)
        yield Measure(
            f"max_duplicate_{size}gram_chars",
            chars / num_chars,
            f"share of characters in repeated {size}-grams",
        )


@kernel
def count_duplicates(
    codes: NDArray[np.uint32], start: int, end: int, line_feeds: int
) -> tuple[int, int, int]:
    """The segments of codes[start:end] between runs of at least `line_feeds` line feeds.

    Returns how many there are, how many of them occurred before, and the characters of these.
    """
    count = 1
    for place in range(start, end):
        count += codes[place] == ord("\n")
    keys = new_table(count)
    segments, duplicates, chars, place = 0, 0, 0, start
    while True:
        segment_end, next_start = place, place
        while segment_end < end:
            next_start = segment_end
            while next_start < end and codes[next_start] == ord("\n"):
                next_start += 1
            if next_start - segment_end >= line_feeds:
                break
            segment_end = max(next_start, segment_end + 1)
        segments += 1
        key = string_hash(codes, place, segment_end)
        slot = find_slot(keys, key)
        if keys[slot] == 0:
            keys[slot] = key
        else:
            duplicates += 1
            chars += segment_end - place
        if segment_end >= end:
            return segments, duplicates, chars
        place = next_start
