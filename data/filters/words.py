"""Cuts English text into words as spaCy's blank English tokenizer does.

A text is cut at white space; from each chunk, punctuation is peeled off both ends until none is left or an
exceptional word remains; what remains is cut at infixes (hyphens between letters and the like) unless it is
a URL. Method and rules: spacy/tokenizer.pyx, spacy/lang/punctuation.py. White space is never a word here.

Where it differs from spaCy: IP addresses are not URLs; "US$", "C$" and "A$" are not peeled off an end, nor
Arabic units; classes of rare characters (see `code_points`); where other rules have cut an exceptional
string that is one word, it is put together by its characters, whatever the cuts.
"""

import numpy as np
from numpy.typing import NDArray

from data.filters.code_points import (
    ALPHA,
    BEFORE_DOT,
    CURRENCY,
    DECIMAL,
    HOST,
    ICON,
    LETTER,
    LOWER,
    PLAIN,
    PREFIX,
    QUOTE,
    SPACE,
    SUFFIX,
    UPPER,
    code_point_classes,
)
from data.filters.compiled import kernel
from data.filters.word_tables import WordTable, exception_table, find_word, piece_chars, unit_table

Codes = NDArray[np.uint32]
Classes = NDArray[np.uint32]

_DOT, _HYPHEN, _ZERO, _NINE = ord("."), ord("-"), ord("0"), ord("9")
_MAX_JOINED = 8  # words that an exceptional string can have been cut into
_MAX_PIECES = 3  # words that an exceptional string is cut into


def split_words(codes: Codes) -> NDArray[np.int32]:
    """int32 [W, 2]: where each word of `codes` starts and ends, in order."""
    return _split(codes, code_point_classes(), exception_table(), unit_table())


@kernel
def _split(codes: Codes, classes: Classes, exceptions: WordTable, units: WordTable) -> NDArray[np.int32]:
    spans = np.empty((len(codes), 2), dtype=np.int32)
    is_start = np.zeros(len(codes) + 1, dtype=np.bool_)
    num_words, place, length = 0, 0, len(codes)
    while place < length:
        of_code = classes[codes[place]]
        if of_code & SPACE:
            place += 1
            continue
        start = place
        common = of_code
        while place < length and not of_code & SPACE:
            common &= of_code
            place += 1
            if place < length:
                of_code = classes[codes[place]]
        if common & PLAIN and not find_word(exceptions, codes, start, place):
            spans[num_words, 0] = start
            spans[num_words, 1] = place
            num_words += 1
            continue
        if _is_word_and_mark(codes, classes, exceptions, start, place):
            spans[num_words, 0] = start
            spans[num_words, 1] = spans[num_words + 1, 0] = place - 1
            spans[num_words + 1, 1] = place
            num_words += 2
            continue
        is_start[start] = True
        _cut_chunk(codes, classes, exceptions, units, start, place, is_start)
        first = num_words
        for end in range(start + 1, place + 1):
            if end == place or is_start[end]:
                spans[num_words, 0] = start
                spans[num_words, 1] = end
                num_words += 1
                start = end
        if num_words > first + 1:
            num_words = _join_exceptions(codes, exceptions, spans, first, num_words)
    return spans[:num_words].copy()


@kernel
def _is_word_and_mark(codes: Codes, classes: Classes, exceptions: WordTable, start: int, end: int) -> bool:
    """Whether codes[start:end] is a plain word and one mark to peel off: a short cut for the common case."""
    mark = codes[end - 1]
    before = classes[codes[end - 2]] if end - start > 1 else 0
    if not before & PLAIN or not (classes[mark] & SUFFIX or (mark == _DOT and before & LOWER)):
        return False
    if not _is_plain(codes, classes, start, end - 2):
        return False
    return not find_word(exceptions, codes, start, end) and not find_word(exceptions, codes, start, end - 1)


@kernel
def _cut_chunk(
    codes: Codes,
    classes: Classes,
    exceptions: WordTable,
    units: WordTable,
    start: int,
    end: int,
    is_start: NDArray[np.bool_],
) -> None:
    """Marks where the words of the chunk codes[start:end] start."""
    while start < end:
        if find_word(exceptions, codes, start, end):
            break
        prefix = _prefix_chars(codes, classes, start, end)
        if prefix and find_word(exceptions, codes, start + prefix, end):
            start += prefix
            break
        suffix = _suffix_chars(codes, classes, units, start + prefix, end)
        if suffix and find_word(exceptions, codes, start, end - suffix):
            end -= suffix
            is_start[end] = True
            break
        if not prefix and not suffix:
            break
        start += prefix
        end -= suffix
        is_start[start] = is_start[end] = True
    if start == end:
        return
    is_start[start] = True
    exception = find_word(exceptions, codes, start, end)
    if exception:
        for piece in range(_MAX_PIECES):
            start += piece_chars(exceptions, exception, piece)
            is_start[start] = True
    elif not _is_plain(codes, classes, start, end) and not _is_url(codes, classes, start, end):
        _cut_infixes(codes, classes, start, end, is_start)


@kernel
def _is_plain(codes: Codes, classes: Classes, start: int, end: int) -> bool:
    for place in range(start, end):
        if not classes[codes[place]] & PLAIN:
            return False
    return True


@kernel
def _prefix_chars(codes: Codes, classes: Classes, start: int, end: int) -> int:
    """The characters to peel off the front of codes[start:end], or 0."""
    code = codes[start]
    if classes[code] & PREFIX:
        return 1
    following = codes[start + 1] if start + 1 < end else 0
    if code == _DOT:
        dots = 1
        while start + dots < end and codes[start + dots] == _DOT:
            dots += 1
        return dots if dots > 1 else 0
    if code == ord("+"):
        return 0 if _ZERO <= following <= _NINE else 1
    if (code == ord("C") or code == ord("A")) and following == ord("$"):
        return 2
    if code == ord("U") and following == ord("S") and start + 2 < end and codes[start + 2] == ord("$"):
        return 3
    return 0


@kernel
def _suffix_chars(codes: Codes, classes: Classes, units: WordTable, start: int, end: int) -> int:
    """The characters to peel off the end of codes[start:end], or 0; the longest rule wins."""
    if start >= end:
        return 0
    code, of_code = codes[end - 1], classes[codes[end - 1]]
    if code == _DOT:
        return _suffix_dots(codes, classes, start, end)
    if end - start >= 2:
        before = codes[end - 2]
        if (code == ord("s") or code == ord("S")) and (before == ord("'") or before == ord("\u2019")):
            return 2
        if of_code & CURRENCY and _ZERO <= before <= _NINE:
            return 1
        if code == ord("+") and _ZERO <= before <= _NINE:
            return 1
    for chars in range(min(4, end - start - 1), 0, -1):
        if _ZERO <= codes[end - chars - 1] <= _NINE and find_word(units, codes, end - chars, end):
            return chars
    return 1 if of_code & SUFFIX else 0


@kernel
def _suffix_dots(codes: Codes, classes: Classes, start: int, end: int) -> int:
    dots = 1
    while end - dots > start and codes[end - dots - 1] == _DOT:
        dots += 1
    if dots > 1:
        return dots
    if end - start >= 2:
        before = classes[codes[end - 2]]
        if before & BEFORE_DOT:
            return 1
        if end - start >= 3:
            if before & UPPER and classes[codes[end - 3]] & UPPER:
                return 1
            letter = codes[end - 2] | 32
            if codes[end - 3] == ord("°") and (
                letter == ord("f") or letter == ord("c") or letter == ord("k")
            ):
                return 1
    return 0


@kernel
def _cut_infixes(codes: Codes, classes: Classes, start: int, end: int, is_start: NDArray[np.bool_]) -> None:
    place = start
    while place < end:
        chars = _infix_chars(codes, classes, start, place, end)
        if chars and place > start:
            is_start[place] = True
            if place + chars < end:
                is_start[place + chars] = True
        place += max(chars, 1)


@kernel
def _infix_chars(codes: Codes, classes: Classes, start: int, place: int, end: int) -> int:
    """The characters of an infix of codes[start:end] at `place`, or 0."""
    code = codes[place]
    if classes[code] & PLAIN:
        return 0
    if classes[code] & ICON or code == ord("…"):
        return 1
    if code == _DOT:
        dots = 1
        while place + dots < end and codes[place + dots] == _DOT:
            dots += 1
        if dots > 1:
            return dots
    if place == start or place + 1 >= end:
        return 0
    before, after = classes[codes[place - 1]], classes[codes[place + 1]]
    digit_before = _ZERO <= codes[place - 1] <= _NINE
    if code == _DOT:
        return 1 if before & (LOWER | QUOTE) and after & (UPPER | QUOTE) else 0
    if code == ord(","):
        return 1 if before & ALPHA and after & ALPHA else 0
    if digit_before and (code == ord("+") or code == _HYPHEN or code == ord("*") or code == ord("^")):
        if codes[place + 1] == _HYPHEN or _ZERO <= codes[place + 1] <= _NINE:
            return 1
    if not (before & ALPHA or digit_before):
        return 0
    if code == ord(":") or code == ord("<") or code == ord(">") or code == ord("=") or code == ord("/"):
        return 1 if after & ALPHA else 0
    return _hyphen_chars(codes, classes, place, end)


@kernel
def _hyphen_chars(codes: Codes, classes: Classes, place: int, end: int) -> int:
    """The characters of a hyphen or dash at `place` that a letter follows, or 0."""
    code = codes[place]
    if code == _HYPHEN:
        longest = 3
    elif code == ord("\u2014"):
        longest = 2
    elif code == ord("\u2013") or code == ord("~"):
        longest = 1
    else:
        return 0
    for chars in range(1, longest + 1):
        if place + chars >= end:
            return 0
        if classes[codes[place + chars]] & ALPHA:
            return chars
        if codes[place + chars] != code:
            return 0
    return 0


@kernel
def _is_url(codes: Codes, classes: Classes, start: int, end: int) -> bool:
    """Whether codes[start:end] is [scheme://][user@]host.domain[:port][/path]."""
    if _is_address(codes, classes, start, end):
        return True
    for place in range(start + 1, end):
        if codes[place] == ord("@") and _is_address(codes, classes, place + 1, end):
            return True
    place = start
    while place < end and _in_scheme(codes[place], classes):
        place += 1
    is_scheme = place >= start + 2 and place + 3 < end and codes[place] == ord(":")
    if is_scheme and codes[place + 1] == ord("/") and codes[place + 2] == ord("/"):
        return _is_address(codes, classes, place + 3, end)
    return False


@kernel
def _in_scheme(code: np.uint32, classes: Classes) -> bool:
    if classes[code] & (LETTER | DECIMAL):
        return True
    return code == ord("_") or code == ord("+") or code == _HYPHEN or code == _DOT


@kernel
def _is_address(codes: Codes, classes: Classes, start: int, end: int) -> bool:
    """Whether codes[start:end] is host.domain[:port][/path], with a domain of lower-case letters."""
    place, labels, label = start, 0, start
    only_lower = True
    while place < end:
        of_code = classes[codes[place]]
        if codes[place] == _DOT:
            if not _is_label(codes, classes, label, place):
                return False
            labels += 1
            label = place + 1
            only_lower = True
        elif of_code & HOST or codes[place] == _HYPHEN or codes[place] == ord("_"):
            only_lower = only_lower and of_code & LOWER != 0
        else:
            break
        place += 1
    if labels == 0 or not only_lower or not 2 <= place - label <= 63:
        return False
    if place < end and codes[place] == ord(":"):
        place += 1
        port = place
        while place < end and _ZERO <= codes[place] <= _NINE:
            place += 1
        if not 2 <= place - port <= 5:
            return False
    if place == end:
        return True
    return codes[place] == ord("/") or codes[place] == ord("?") or codes[place] == ord("#")


@kernel
def _is_label(codes: Codes, classes: Classes, start: int, end: int) -> bool:
    if not 1 <= end - start <= 64:
        return False
    return classes[codes[start]] & HOST != 0 and classes[codes[end - 1]] & HOST != 0


@kernel
def _join_exceptions(
    codes: Codes, exceptions: WordTable, spans: NDArray[np.int32], first: int, end: int
) -> int:
    """Makes one word of those of spans[first:end] that together are an exceptional string.

    The most words first, then the leftmost. Returns the new end of the spans.
    """
    most = min(_MAX_JOINED, end - first)
    while most > 1:
        for start in range(first, end - most + 1):
            place = find_word(exceptions, codes, spans[start, 0], spans[start + most - 1, 1])
            if place and piece_chars(exceptions, place, 0) == 0:
                spans[start, 1] = spans[start + most - 1, 1]
                for moved in range(start + most, end):
                    spans[moved - most + 1, 0] = spans[moved, 0]
                    spans[moved - most + 1, 1] = spans[moved, 1]
                end -= most - 1
                break
        else:
            most -= 1
        most = min(most, end - first)
    return end
