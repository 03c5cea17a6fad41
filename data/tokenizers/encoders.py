"""Many texts to one array of ids, and the check of a fast encoder against the exact one.

The exact encoder is the library that defines the format; a fast one must give the same ids. It is
checked on texts made to be difficult before it is used at all, and then on a sample of what it encodes:
documents that their own hash chooses, so that any number of workers checks the same ones.
"""

import zlib
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from seedbed.errors import DataError

Flat = tuple[NDArray[np.uint32], NDArray[np.int64]]
"""ids [total] of all texts, one after the other, and ends [num_texts]: where each text's ids end."""

ONE_IN = 4096
# Of a longer text only the beginning is checked, encoded once more by itself.
CHECK_CHARACTERS = 2**14
FIRST_CHARACTERS = 2**15

# Where encoders of one vocabulary have been known to part: contractions, runs of digits and of
# spaces, marks that combine, scripts without spaces, characters that only some call white or letters.
DIFFICULT = (
    "I'll, you'RE; they'D've 'tis 'S '\u017f o''clock  's",
    "1234567890 3.14 1,000,000 ١٢٣ Ⅻ x² ½ 0x1F 1st",
    " one  two   three\t\ttabs \n\n\n  new\r\nline \r \n ",
    "    def f(x):\n        return x  # done\n\n\n\tend\n   ",
    "e\u0301 n\u0303o \u0301x \u0300\u0301 a\u0308\u0323 ,\u0301 1\u0301 \u0e01\u0e33\u0e49 q\u0307\u0323",
    "日本語のテキスト。中文\uff0c標點\uff01 한국어 각 \u1100\u1161\u11a8 ภาษาไทย हिन्दी ﷽ עִברִית",
    "😀👩‍👩‍👧‍👦🏳️‍🌈 ✨⁉️ \U0001f1e9\U0001f1ea \U0010ffff",
    "a\u00a0b\u2003c\u2028d\u2029e\u3000f\u200bg\ufeffh\u0085i\x0bj\x0ck\x1cl\x1fm\x7fn",
    "ǅ ŉ ẞ ß İ \u0131 ﬁ Ⓐ ª º ʰ _under_score_ CamelCaseHTTPServer ALLCAPS",
    "!!!??... -- --- ((())) [[]] {}{} <|x|> </s> <s> <unk> <0x41> ### $100 €5 @me #tag a/b\\c",
    "a" * 300 + " " * 100 + "ab" * 100 + "\n" * 50 + "=" * 90,
    "https://example.org/a?b=c&d=%20e#f user.name+tag@example.org ~/.config C:\\dir\\file.txt",
    "\ufffd \ufffe \ue000 \u0378 \u2581x \u2047 \u0120\u010a",
)


class Encoder(Protocol):
    """Encodes texts, without special ids. `name` is its library and version."""

    @property
    def name(self) -> str: ...

    def __call__(self, texts: Sequence[str]) -> Flat: ...


class EncoderMismatch(DataError):
    """A fast encoder gave other ids than the exact one; all of a build must be encoded by the exact one."""


def flat(rows: Sequence[NDArray[np.uint32]]) -> Flat:
    """The ids of each text as one array."""
    ends = np.cumsum([len(row) for row in rows], dtype=np.int64)
    return np.concatenate(rows) if rows else np.empty(0, np.uint32), ends


class CheckedEncoder:
    """`fast`, compared with `exact` on a sample of what it encodes."""

    def __init__(self, fast: Encoder, exact: Encoder) -> None:
        self._fast, self._exact = fast, exact
        self.name = fast.name

    def __call__(self, texts: Sequence[str], check_first: bool = False) -> Flat:
        """As `fast`; EncoderMismatch when the two differ on a text of the sample.

        With `check_first` the sample also has the first texts, of FIRST_CHARACTERS together.
        """
        ids, ends = self._fast(texts)
        for number in _sample(texts, check_first):
            begin = int(ends[number - 1]) if number else 0
            self._check(texts[number], ids[begin : ends[number]])
        return ids, ends

    def first_difference(self, texts: Sequence[str]) -> str:
        """The first of `texts` on which the encoders differ; empty if there is none."""
        (fast, fast_ends), (exact, exact_ends) = self._fast(texts), self._exact(texts)
        if np.array_equal(fast, exact) and np.array_equal(fast_ends, exact_ends):
            return ""
        return next(
            text for text in texts if not np.array_equal(self._fast([text])[0], self._exact([text])[0])
        )

    def _check(self, text: str, ids: NDArray[np.uint32]) -> None:
        if len(text) > CHECK_CHARACTERS:
            text = text[:CHECK_CHARACTERS]
            ids, _ = self._fast([text])
        expected, _ = self._exact([text])
        if np.array_equal(ids, expected):
            return
        num_equal = int(np.cumprod(ids[: len(expected)] == expected[: len(ids)]).sum())
        raise EncoderMismatch(
            f"{self._fast.name} and {self._exact.name} differ from token {num_equal} of a text that begins "
            f"{text[:40]!r}",
            f"encode with {self._exact.name}",
        )


def _sample(texts: Sequence[str], check_first: bool) -> Iterator[int]:
    """Numbers of the texts to check; which ones depends on the texts alone."""
    budget = FIRST_CHARACTERS if check_first else 0
    for number, text in enumerate(texts):
        if budget > 0 or zlib.crc32(text[:256].encode()) % ONE_IN == 0:
            yield number
        budget -= min(len(text), CHECK_CHARACTERS)
