"""Short strings in a form that kernels look up: the exceptional words and the units of `english`.

A table is one array, since kernels pass single arrays around for free: bits that say quickly that a string
is not in it, then an open-addressing table of pairs, a string's hash (0: empty) and the words it is cut
into.
"""

import functools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from data.filters.compiled import kernel
from data.filters.english import UNITS, exceptional_words
from data.filters.hashing import GOLDEN, string_hash

WordTable = NDArray[np.uint64]

MAX_CHARS = 12
_HINTS = 512  # entries of 64 bits, before the pairs
_PIECE_BITS = 4  # the length of each word but the last, from the lowest bits on


@functools.cache
def exception_table() -> WordTable:
    """The exceptional words, each with the words it is cut into."""
    return _table(exceptional_words())


@functools.cache
def unit_table() -> WordTable:
    """The units of measurement."""
    return _table({unit: (unit,) for unit in UNITS.split()})


@kernel
def find_word(table: WordTable, codes: NDArray[np.uint32], start: int, end: int) -> int:
    """Where codes[start:end] is in `table`, or 0."""
    if end - start > MAX_CHARS or end <= start:
        return 0
    hint = _hint(codes, start, end)
    if not (table[hint >> 6] >> np.uint64(hint & 63)) & np.uint64(1):
        return 0
    place = _place(table, string_hash(codes, start, end))
    return place if table[place] != 0 else 0


@kernel
def piece_chars(table: WordTable, place: int, piece: int) -> int:
    """The characters of word number `piece` of the string at `place`, or 0: it is the last one."""
    return int(table[place + 1] >> np.uint64(_PIECE_BITS * piece)) & ((1 << _PIECE_BITS) - 1)


@kernel
def _hint(codes: NDArray[np.uint32], start: int, end: int) -> int:
    length = end - start
    first, middle, last = codes[start], codes[start + length // 2], codes[end - 1]
    return (int(first) + 131 * int(middle) + 521 * int(last) + 37 * int(length)) & (64 * _HINTS - 1)


@kernel
def _place(table: WordTable, key: np.uint64) -> int:
    """Where `key` is in the table, or belongs."""
    mask = ((len(table) - _HINTS) >> 1) - 1
    slot = np.int64((key * GOLDEN) >> np.uint64(33)) & mask
    while table[_HINTS + 2 * slot] != 0 and table[_HINTS + 2 * slot] != key:
        slot = (slot + 1) & mask
    return int(_HINTS + 2 * slot)


def _table(words: Mapping[str, tuple[str, ...]]) -> WordTable:
    slots = 1 << (4 * len(words)).bit_length()
    table = np.zeros(_HINTS + 2 * slots, dtype=np.uint64)
    for string, cut in words.items():
        codes = np.frombuffer(string.encode("utf-32-le"), dtype=np.uint32)
        hint = int(_hint(codes, 0, len(codes)))
        table[hint >> 6] |= np.uint64(1 << (hint & 63))
        key = np.uint64(string_hash(codes, 0, len(codes)))
        place = _place(table, key)
        lengths = [len(piece) for piece in cut[:-1]]
        table[place] = key
        table[place + 1] = sum(length << (_PIECE_BITS * piece) for piece, length in enumerate(lengths))
    return table
