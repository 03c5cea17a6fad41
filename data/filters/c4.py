"""The rules of C4: keeps the lines of a page that read like sentences, and pages with enough of them.

Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer"
(JMLR 21:140), section 2.2; details follow datatrove 0.10.1, which counts sentences as spaCy's sentencizer
does. The list of bad words is left out. Phrases are sought without regard to the case of the letters A to
Z.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from data.filters.code_points import DECIMAL, LINE_BREAK, PUNCTUATION, SPACE, STOP, code_point_classes
from data.filters.compiled import kernel
from data.filters.page import Page
from data.filters.verdict import Measure, Rejected, first_beyond

Codes = NDArray[np.uint32]

# What a line can be removed, or its page dropped, for. Also the bits of the rules in force.
_LOREM_IPSUM, _JAVASCRIPT, _POLICY, _CURLY_BRACKET, _UNFINISHED, _CITATION = 1, 2, 4, 8, 16, 32

_PHRASES = {
    "lorem ipsum": _LOREM_IPSUM,
    "javascript": _JAVASCRIPT,
    "terms of use": _POLICY,
    "privacy policy": _POLICY,
    "cookie policy": _POLICY,
    "uses cookies": _POLICY,
    "use of cookies": _POLICY,
    "use cookies": _POLICY,
}


@dataclass(frozen=True)
class C4:
    """Keeps the lines that no rule excludes, if they hold enough sentences."""

    name: ClassVar[str] = "c4"

    min_sentences: float = 5
    """Sentences in the lines that are kept."""
    min_line_words: float = 3
    """Lines of fewer words are removed."""
    max_word_chars: float = 1000
    """Lines with a longer word are removed."""
    terminal_punctuation: bool = True
    """Remove lines that do not end with . ? ! " or ', or that end with an ellipsis."""
    remove_citations: bool = True
    """Remove [1], [edit] and [citation needed]."""
    drop_lorem_ipsum: bool = True
    """Drop pages with "lorem ipsum" in a line that would be kept."""
    drop_curly_bracket: bool = True
    """Drop pages with { in a line that would be kept."""
    remove_javascript: bool = True
    """Remove lines that mention JavaScript."""
    remove_policy: bool = True
    """Remove lines about cookies, privacy policies and terms of use."""

    def __call__(self, page: Page) -> Page | Rejected:
        classes = code_point_classes()
        limits = float(self.min_line_words), float(self.max_word_chars)
        kept, refused = _keep_lines(page.codes, classes, self._rules(), *limits)
        if refused == _LOREM_IPSUM:
            return Rejected(f"{self.name}.drop_lorem_ipsum", "a line with lorem ipsum")
        if refused == _CURLY_BRACKET:
            return Rejected(f"{self.name}.drop_curly_bracket", "a line with {")
        edited = Page.of_codes(kept)
        if edited.text == page.text:
            edited = page
        sentences = _count_sentences(edited.codes, classes, edited.words)
        measure = Measure("min_sentences", sentences, "sentences in the lines that are kept")
        rejected = first_beyond(self.name, self, [measure])
        if not rejected and not edited.text:
            rejected = Rejected(f"{self.name}.empty", "no line is kept")
        return rejected or edited

    def _rules(self) -> int:
        rules = {
            _LOREM_IPSUM: self.drop_lorem_ipsum,
            _JAVASCRIPT: self.remove_javascript,
            _POLICY: self.remove_policy,
            _CURLY_BRACKET: self.drop_curly_bracket,
            _UNFINISHED: self.terminal_punctuation,
            _CITATION: self.remove_citations,
        }
        return sum(rule for rule, in_force in rules.items() if in_force)


@kernel
def _keep_lines(
    codes: Codes, classes: Codes, rules: int, min_line_words: float, max_word_chars: float
) -> tuple[Codes, int]:
    """The lines to keep, stripped and with line feeds between; or for what the page is dropped."""
    out = np.empty(len(codes) + 1, dtype=np.uint32)
    size, place = 0, 0
    while place < len(codes):
        first, end, words, place = _measure_line(codes, classes, place)
        if end - first > max_word_chars and _longest_word(codes, classes, first, end) > max_word_chars:
            continue
        line_end = _copy_line(codes, classes, first, end, out, size, rules & _CITATION)
        if (rules & _UNFINISHED and not _is_finished(out, size, line_end)) or words < min_line_words:
            continue
        found = _find_phrases(out, size, line_end) & rules
        if found & _LOREM_IPSUM:
            return out[:0], _LOREM_IPSUM
        if found & _JAVASCRIPT:
            continue
        if found & _CURLY_BRACKET:
            return out[:0], _CURLY_BRACKET
        if found & _POLICY:
            continue
        out[line_end] = ord("\n")
        size = line_end + 1
    start, end = 0, size
    while start < end and classes[out[start]] & SPACE:
        start += 1
    while end > start and classes[out[end - 1]] & SPACE:
        end -= 1
    return out[start:end], 0


@kernel
def _measure_line(codes: Codes, classes: Codes, start: int) -> tuple[int, int, int, int]:
    """The line at `start`: where it begins and ends without white space around, its words; the next line."""
    words, in_word, place = 0, 0, start
    while place < len(codes):
        of_code = classes[codes[place]]
        if of_code & LINE_BREAK:
            break
        is_word = 1 - (of_code & SPACE)
        words += is_word & ~in_word
        in_word = is_word
        place += 1
    end = place
    while start < end and classes[codes[start]] & SPACE:
        start += 1
    while end > start and classes[codes[end - 1]] & SPACE:
        end -= 1
    if place + 1 < len(codes) and codes[place] == ord("\r") and codes[place + 1] == ord("\n"):
        place += 1
    return start, end, words, place + 1


@kernel
def _longest_word(codes: Codes, classes: Codes, start: int, end: int) -> int:
    longest = 0
    for place in range(start, end):
        if classes[codes[place]] & SPACE:
            start = place + 1
        longest = max(longest, place + 1 - start)
    return longest


@kernel
def _copy_line(codes: Codes, classes: Codes, start: int, end: int, out: Codes, size: int, cited: int) -> int:
    """Copies codes[start:end] to out[size:], without its citations if `cited`; returns the end there."""
    while start < end:
        skipped = _citation_chars(codes, classes, start, end) if cited and codes[start] == ord("[") else 0
        if skipped == 0:
            out[size] = codes[start]
            size += 1
        start += max(skipped, 1)
    return size


@kernel
def _citation_chars(codes: Codes, classes: Codes, start: int, end: int) -> int:
    """The characters of the citation at `start`, or 0."""
    for mark in range(len(_CITATIONS)):
        chars = _phrase_chars(codes, start, end, _CITATIONS, mark)
        if chars:
            return chars
    place = start + 1
    while place < end and classes[codes[place]] & DECIMAL:
        place += 1
    return place + 1 - start if place < end and codes[place] == ord("]") else 0


@kernel
def _is_finished(line: Codes, start: int, end: int) -> bool:
    """Whether line[start:end] ends with terminal punctuation, and not with an ellipsis."""
    if end == start:
        return False
    last = line[end - 1]
    if last == ord("."):
        return not (end - start >= 3 and line[end - 2] == ord(".") and line[end - 3] == ord("."))
    return last == ord("?") or last == ord("!") or last == ord('"') or last == ord("'")


@kernel
def _find_phrases(line: Codes, start: int, end: int) -> int:
    """The kinds of the phrases in line[start:end], and _CURLY_BRACKET if there is one."""
    found = 0
    for place in range(start, end):
        code = line[place]
        if code == ord("{"):
            found |= _CURLY_BRACKET
        following = line[place + 1] if place + 1 < end else 0
        likely = _PHRASE_STARTS[code & 127, 0] & _PHRASE_STARTS[following & 127, 1]
        for phrase in range(len(_PHRASE_KINDS) if likely else 0):
            if (likely >> phrase) & 1 and _phrase_chars(line, place, end, _PHRASE_CODES, phrase):
                found |= _PHRASE_KINDS[phrase]
    return found


@kernel
def _phrase_chars(line: Codes, start: int, end: int, phrases: Codes, phrase: int) -> int:
    """The characters of phrases[phrase] if line[start:end] starts with it in any case, or 0."""
    chars = 0
    while phrases[phrase, chars]:
        if start + chars == end or _lower(line[start + chars]) != phrases[phrase, chars]:
            return 0
        chars += 1
    return chars


@kernel
def _lower(code: int) -> int:
    return code + 32 if ord("A") <= code <= ord("Z") else code


@kernel
def _count_sentences(codes: Codes, classes: Codes, words: NDArray[np.int32]) -> int:
    """Sentences of all lines: after a full stop or the like, the next word but for punctuation starts one."""
    sentences, stopped = 0, False
    for word in range(len(words)):
        start, end = words[word, 0], words[word, 1]
        is_stop = end - start == 1 and classes[codes[start]] & STOP != 0
        new_line = word == 0
        for place in range(words[word - 1, 1] if word else start, start):
            new_line = new_line or codes[place] == ord("\n")
        if new_line or (stopped and not is_stop and not _is_punctuation(codes, classes, start, end)):
            sentences += 1
            stopped = False
        stopped = stopped or is_stop
    return sentences


@kernel
def _is_punctuation(codes: Codes, classes: Codes, start: int, end: int) -> bool:
    for place in range(start, end):
        if not classes[codes[place]] & PUNCTUATION:
            return False
    return True


def _padded(phrases: Iterable[str]) -> Codes:
    """uint32 [phrases, longest + 1]: code points, then zeros."""
    rows = [[ord(character) for character in phrase] for phrase in phrases]
    longest = max(map(len, rows))
    return np.array([row + [0] * (longest + 1 - len(row)) for row in rows], dtype=np.uint32)


def _phrase_starts() -> NDArray[np.int64]:
    """int64 [128, 2]: the phrases, as bits, that have an ASCII character in any case first, and second."""
    starts = np.zeros((128, 2), dtype=np.int64)
    for bit, phrase in enumerate(_PHRASES):
        for place in (0, 1):
            for letter in {phrase[place], phrase[place].upper()}:
                starts[ord(letter), place] |= 1 << bit
    return starts


_PHRASE_CODES = _padded(_PHRASES)
_PHRASE_KINDS = np.array(list(_PHRASES.values()), dtype=np.int64)
_PHRASE_STARTS = _phrase_starts()
_CITATIONS = _padded(["[edit]", "[citation needed]"])
