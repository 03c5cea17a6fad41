"""WordPiece at the speed of a dictionary, with exactly the ids of `tokenizers`.

BERT's pre-tokenizer separates text at white space and around every punctuation character and CJK
ideograph, and its normaliser never looks across such a place. So the ids of a text are those of its
words, one after the other, and only words that are new need to reach `tokenizers`.
"""

import re
from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
import tokenizers

from data.tokenizers.encoders import Flat

# A word and its ids take some 150 bytes: 40 MB at most. Longer words are seldom seen twice.
MAX_WORDS = 2**18
MAX_KEPT_CHARACTERS = 64

_PUNCTUATION = r"!-/:-@\[-`{-~"
# What BERT's normaliser calls Chinese characters (Devlin et al. 2018, reference tokenization.py).
_IDEOGRAPHS = (
    "\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002a6df\U0002a700-\U0002b73f\U0002b740-\U0002b81f"
    "\U0002b820-\U0002ceaf\uf900-\ufaff\U0002f800-\U0002fa1f"
)


class WordCache:
    """Encodes word by word and remembers. `backend` normalises and pre-tokenizes as BERT does."""

    def __init__(self, backend: tokenizers.Tokenizer, separates_ideographs: bool) -> None:
        alone = _PUNCTUATION + (_IDEOGRAPHS if separates_ideographs else "")
        self.name = f"word cache over tokenizers {version('tokenizers')}"
        self._backend = backend
        # Other white space stays inside a word, and the backend separates there.
        self._words = re.compile(f"[{alone}]|[^ \t\r\n{alone}]+").findall
        # Ids as bytes (uint32): joining bytes makes an array without a Python object per id.
        self._ids: dict[str, bytes] = {}

    def __call__(self, texts: Sequence[str]) -> Flat:
        rows = [self._encode(self._words(text)) for text in texts]
        ends = np.cumsum([len(row) for row in rows], dtype=np.int64) // 4
        return np.frombuffer(b"".join(rows), dtype=np.uint32), ends

    def _encode(self, words: list[str]) -> bytes:
        new = set(words).difference(self._ids)
        for word in new:
            ids = self._backend.encode(word, add_special_tokens=False).ids
            self._ids[word] = np.array(ids, dtype=np.uint32).tobytes()
        encoded = b"".join(map(self._ids.__getitem__, words))
        if len(self._ids) > MAX_WORDS:
            self._ids.clear()
        else:
            for word in new:
                if len(word) > MAX_KEPT_CHARACTERS:
                    del self._ids[word]
        return encoded
