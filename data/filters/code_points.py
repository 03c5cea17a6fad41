"""What the filters need to know of a character: one row of bits per code point.

The classes follow Python's Unicode database, whose version is therefore part of a filter's identity. Those
of words are spaCy's for English (spacy/lang/char_classes.py), stated by Unicode category and block instead
of one by one: letters are the cased letters of the Latin, Greek and Cyrillic blocks and the whole blocks of
scripts without case, icons are category So, currencies category Sc.
"""

import functools
import unicodedata

import numpy as np
from numpy.typing import NDArray

SPACE = 1 << 0  # str.isspace
LINE_BREAK = 1 << 1  # str.splitlines
LETTER = 1 << 2  # str.isalpha
DECIMAL = 1 << 3  # what \d matches
PUNCTUATION = 1 << 4  # category P
STOP = 1 << 5  # ends a sentence
SYMBOL = 1 << 6  # words of these alone are no words for Gopher
PREFIX = 1 << 7  # peeled off the front of a word
SUFFIX = 1 << 8  # peeled off the end of a word
ICON = 1 << 9  # a word by itself, wherever it stands
LOWER = 1 << 10  # lower-case letters, and those that have no case
UPPER = 1 << 11  # upper-case letters, and those that have no case
ALPHA = LOWER | UPPER
QUOTE = 1 << 12
CURRENCY = 1 << 13
BEFORE_DOT = 1 << 14  # a full stop after it is peeled off
HOST = 1 << 15  # may stand in a host name
PLAIN = 1 << 16  # runs of these have nothing to peel off and nowhere to be cut

_LINE_BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_AFFIXES = "…,:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪"
_QUOTES = "'\"”“`‘´’‚„»«「」『』（）〔〕【】《》〈〉\u2329\u232a⟦⟧"

# The punctuation that CCNet strips (Wenzek et al. 2020, arXiv:1911.00359); controls and stops join it.
_SYMBOLS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~«´»–—’“”„…∶━►、。〈〉《》「」【】！％（），．１：；？～"

# Unicode's Sentence_Terminal characters.
_STOPS = """
    21 2E 3F 589 61D-61F 6D4 700-702 7F9 837 839 83D-83E 964-965 104A-104B 1362 1367-1368 166E 1735-1736
    17D4-17D6 17D9-17DA 1803 1809 1944-1945 1AA8-1AAB 1B5A-1B5B 1B5E-1B5F 1B7D-1B7E 1C3B-1C3C 1C7E-1C7F
    203C-203D 2047-2049 2E2E 2E3C 2E53-2E54 3002 A4FF A60E-A60F A6F3 A6F7 A876-A877 A8CE-A8CF A92F A9C8-A9C9
    AA5D-AA5F AAF0-AAF1 ABEB FE52 FE56-FE57 FF01 FF0E FF1F FF61 10A56-10A57 10F55-10F59 10F86-10F89
    11047-11048 110BE-110C1 11141-11143 111C5-111C6 111CD 111DE-111DF 11238-11239 1123B-1123C 112A9
    1144B-1144C 115C2-115C3 115C9-115D7 11641-11642 1173C-1173E 11944 11946 11A42-11A43 11A9B-11A9C
    11C41-11C42 11EF7-11EF8 11F43-11F44 16A6E-16A6F 16AF5 16B37-16B38 16B44 16E98 1BC9F 1DA88
"""
_CASED_BLOCKS = """
    41-5A 61-7A C0-D6 D8-F6 F8-1BF 1C4-2AF 370-52F 1D00-1D25 1D6B-1D77 1D79-1D9A 1E00-1EFF
    2C60-2C7F A722-A787 A78B-A7FA AB30-AB64 FF21-FF3A FF41-FF5A
"""
_UNCASED_BLOCKS = """
    591-5F4 620-64A 66E-6D5 6E5-6FF 750-77F 8A0-8BD 900-9FF B80-CFF D80-DFF 1100-137F 2E80-30FF 31C0-31EF
    3200-4DBF 4E00-9FFF AC00-D7AF F900-FAFF FB1D-FBB1 FBD3-FD3D FD50-FDC7 FDF0-FDFB FE30-FE4F FE70-FEFC
    1EE00-1EEBB 1F200-1F2FF 20000-2EBEF 2F800-2FA1F
"""
_ASSIGNED = 0x33000  # no letter, space, digit, punctuation or symbol is assigned above


@functools.cache
def code_point_classes() -> NDArray[np.uint32]:
    """uint32 [0x110000]: the bits above for each code point. Takes about 0.1 s, once per process."""
    classes = np.zeros(0x110000, dtype=np.uint32)
    _mark_categories(classes)
    for code in range(0x3001):
        if chr(code).isspace():
            classes[code] |= SPACE
    classes[0:160] |= np.where(_is_symbol_control(np.arange(160)), SYMBOL, 0).astype(np.uint32)
    _mark(classes, _SYMBOLS, SYMBOL)
    _mark(classes, _LINE_BREAKS, LINE_BREAK)
    _mark(classes, _AFFIXES, PREFIX | SUFFIX | BEFORE_DOT)
    _mark(classes, _QUOTES, PREFIX | SUFFIX | QUOTE | BEFORE_DOT)
    _mark(classes, "—–", PREFIX | SUFFIX)
    _mark(classes, "§%=", PREFIX)
    _mark(classes, "0123456789%²-+|", BEFORE_DOT)
    classes[_code_points(_STOPS)] |= STOP | SYMBOL
    classes[ord("0") : ord("9") + 1] |= HOST
    classes[ord("A") : ord("Z") + 1] |= HOST
    classes[ord("a") : ord("z") + 1] |= HOST
    classes[0xA1:0x10000] |= HOST
    peeled = classes & (PREFIX | SUFFIX | ICON) != 0
    classes[(classes & LETTER != 0) & ~peeled] |= PLAIN
    classes.flags.writeable = False
    return classes


def _mark_categories(classes: NDArray[np.uint32]) -> None:
    names = [unicodedata.category(chr(code)) for code in range(_ASSIGNED)]
    category = np.array(names, dtype="S2")
    known = classes[:_ASSIGNED]
    known[np.char.startswith(category, b"L")] |= LETTER
    known[np.char.startswith(category, b"P")] |= PUNCTUATION
    known[category == b"Nd"] |= DECIMAL
    known[category == b"So"] |= PREFIX | SUFFIX | ICON
    known[category == b"Sc"] |= PREFIX | CURRENCY
    cased, uncased = np.zeros(_ASSIGNED, dtype=bool), np.zeros(_ASSIGNED, dtype=bool)
    cased[_code_points(_CASED_BLOCKS)] = True
    uncased[_code_points(_UNCASED_BLOCKS)] = True
    known[uncased | (cased & (category == b"Ll"))] |= LOWER | BEFORE_DOT
    known[uncased | (cased & (category == b"Lu"))] |= UPPER


def _is_symbol_control(code: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The C0 and C1 controls but for tab and line feed."""
    return ((code < 32) & (code != 9) & (code != 10)) | (code >= 127)


def _mark(classes: NDArray[np.uint32], characters: str, bits: int) -> None:
    classes[[ord(character) for character in characters]] |= np.uint32(bits)


def _code_points(ranges: str) -> list[int]:
    """The code points of "21 61D-61F": hexadecimal, ranges with both ends."""
    spans = [[int(end, 16) for end in part.split("-")] for part in ranges.split()]
    return [code for span in spans for code in range(span[0], span[-1] + 1)]
