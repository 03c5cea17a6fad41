"""Words and word n-grams (shingles) of texts, as arrays of 64-bit hashes.

A word is a run of letters, digits, combining marks and "_", in lower case. Scripts that are written
without spaces have no such runs to speak of, so there each character is a word by itself. Case is taken
away code point by code point: "İ" becomes "i", and a final "ς" counts as "σ".

Hashes are polynomials modulo 2^64 in a fixed odd base (Karp and Rabin 1987, "Efficient randomized
pattern-matching algorithms"): of code points for words, of words for n-grams. From prefix sums, any span
costs one subtraction and one multiplication. They are the same in every process and however texts are
batched. Not meant to withstand texts made to collide.

Shapes: N texts, W words of all of them, S spans.
"""

import sys
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.hashing import mix64

_BASE = 0x9E3779B97F4A7C13
_INVERSE_BASE = pow(_BASE, -1, 2**64)
_PAGE = 2**15

_LETTERS_END = 0x40000
"""No letter has a code point from here on."""
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x312F),  # iteration marks, kana, Bopomofo
    (0x31A0, 0x31FF),  # more of the two
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),  # half-width kana
    (0x1AFF0, 0x1B16F),  # old kana
    (0x20000, 0x3FFFF),  # rare Han
)


class Words(NamedTuple):
    """The words, or word n-grams, of N texts, one after another."""

    hashes: NDArray[np.uint64]
    """[W]: the same for the same words."""
    bounds: NDArray[np.int64]
    """[N + 1]: those of text n are hashes[bounds[n] : bounds[n + 1]]."""


def hash_words(texts: Sequence[str]) -> Words:
    """The words of `texts`. Takes some 15 bytes of memory per character; see `in_groups`."""
    codes = _word_codes("\n".join(["", *texts, ""]))
    starts, stops = _word_spans(codes)
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    text_starts = 1 + _running_total(lengths + 1)
    return Words(mix64(_hash_spans(codes, starts, stops)), np.searchsorted(starts, text_starts))


def hash_ngrams(words: Words, size: int) -> Words:
    """Every run of `size` words of a text; a text that has fewer, but some, is one run of them all."""
    starts, bounds = ngram_starts(words.bounds, size)
    stops = np.minimum(starts + size, np.repeat(words.bounds[1:], np.diff(bounds)))
    return Words(mix64(_hash_spans(words.hashes, starts, stops)), bounds)


def ngram_starts(bounds: NDArray[np.int64], size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first words of the n-grams of texts with these `bounds`, and the bounds of the n-grams."""
    num_words, ends = np.diff(bounds), bounds[1:]
    is_start = np.ones(bounds[-1], dtype=np.bool_)
    for place in range(1, size):
        is_start[ends[num_words > place] - place] = False
    num_starts = np.where(num_words < size, np.minimum(num_words, 1), num_words - size + 1)
    return np.flatnonzero(is_start), _running_total(num_starts)


def split_words(text: str) -> list[str]:
    """The words of one text themselves."""
    codes = _word_codes(f"\n{text}\n")
    lowered = codes.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
    starts, stops = _word_spans(codes)
    return [lowered[start:stop] for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]


def in_groups(texts: Sequence[str], num_characters: int = 2**17) -> Iterator[slice]:
    """Runs of texts that hold about `num_characters`, small enough for a processor's cache."""
    begin = held = 0
    for number, text in enumerate(texts):
        if held and held + len(text) > num_characters:
            yield slice(begin, number)
            begin, held = number, 0
        held += len(text)
    if begin < len(texts):
        yield slice(begin, len(texts))


def _running_total(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])


def _word_codes(text: str) -> NDArray[np.uint8] | NDArray[np.uint32]:
    """[characters]: lower-case code points, 0 for what is no part of a word."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii").translate(_ascii_codes()), dtype=np.uint8)
    return _unicode_codes().take(np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4"))


def _word_spans(codes: NDArray[np.uint8] | NDArray[np.uint32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """[S], [S]: the first characters and the ends of the words; `codes` has no word at either edge."""
    in_word = codes != 0
    if codes.max() < _UNSPACED[0][0]:
        edges = np.flatnonzero(in_word[1:] != in_word[:-1]) + 1
        return edges[::2], edges[1::2]
    unspaced = _unspaced_table().take(codes)
    divided = (in_word[1:] != in_word[:-1]) | unspaced[1:] | unspaced[:-1]
    return np.flatnonzero(divided & in_word[1:]) + 1, np.flatnonzero(divided & in_word[:-1]) + 1


def _hash_spans(
    values: NDArray[np.unsignedinteger], starts: NDArray[np.int64], stops: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """[S]: for each span the sum of values[i] * base^(i - start), modulo 2^64.

    Spans are not empty, and both starts and stops ascend. Works by pages of values, with powers that
    count from the page's first value; `scale` brings them to a common origin.
    """
    sums = np.zeros(len(starts), dtype=np.uint64)
    units = np.empty(len(starts), dtype=np.uint64)
    total, prefix = 0, np.zeros(_PAGE + 1, dtype=np.uint64)
    for begin in range(0, len(values), _PAGE):
        page = values[begin : begin + _PAGE]
        end = begin + len(page)
        np.cumsum(_powers(_BASE)[: len(page)] * page, out=prefix[1 : len(page) + 1])
        scale, unscale = (np.uint64(pow(base, begin, 2**64)) for base in (_BASE, _INVERSE_BASE))
        prefix *= scale
        starting = slice(*np.searchsorted(starts, [begin, end]))
        places = starts[starting] - begin
        sums[starting] -= prefix[places] + np.uint64(total)
        units[starting] = _powers(_INVERSE_BASE)[places] * unscale
        stopping = slice(*np.searchsorted(stops, [begin, end], side="right"))
        sums[stopping] += prefix[stops[stopping] - begin] + np.uint64(total)
        total = (total + int(prefix[len(page)])) % 2**64
    return sums * units


@cache
def _powers(base: int) -> NDArray[np.uint64]:
    """[_PAGE]: base^0, base^1 ... modulo 2^64."""
    factors = np.full(_PAGE, base, dtype=np.uint64)
    factors[0] = 1
    return np.cumprod(factors)


@cache
def _unicode_codes() -> NDArray[np.uint32]:
    """[code points]: the lower case of each that is part of a word, 0 for the others."""
    codes = np.zeros(sys.maxunicode + 1, dtype=np.uint32)
    for number, character in enumerate(map(chr, range(_LETTERS_END))):
        if character == "_" or character.isalnum() or unicodedata.category(character).startswith("M"):
            codes[number] = ord(character.lower()[0])
    codes[0x03C2] = 0x03C3  # final sigma
    return codes


@cache
def _ascii_codes() -> bytes:
    lowered = (chr(n).lower() if chr(n).isalnum() or chr(n) == "_" else "\0" for n in range(128))
    return "".join(lowered).encode("ascii") + bytes(128)


@cache
def _unspaced_table() -> NDArray[np.bool_]:
    table = np.zeros(sys.maxunicode + 1, dtype=np.bool_)
    for first, last in _UNSPACED:
        table[first : last + 1] = True
    return table
