"""What every tokenizer does, whatever library runs it and whatever file holds it."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.tokenizers.encoders import DIFFICULT, CheckedEncoder, Encoder, Flat
from seedbed.errors import DataError

END_OF_TEXT = "<|endoftext|>"
# What other makers end their documents with, where END_OF_TEXT is not in the vocabulary.
_ENDS = (
    END_OF_TEXT,
    "</s>",
    "<|end_of_text|>",
    "<|im_end|>",
    "<eos>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
    "[SEP]",
)

AUTO, EXACT = "auto", "exact"


class Tokenizer(ABC):
    """Text <-> ids. Text that spells out a special token is text: encoding never gives a special id,
    but for that of unknown words where the vocabulary has one.

    kind           "byte-bpe", "unigram", "sentencepiece-bpe", "wordpiece"; elsewhere also "bpe", "word-level"
    file_name      what it is stored as: tokenizer.json or tokenizer.model
    vocab_size     one more than the largest id
    special_ids    special token -> id
    end_of_text    the special token that ends a document; end_of_text_id is its id
    fingerprint    SHA-256 over all that decides which ids a text becomes
    lossy_because  why some texts do not come back from their ids as they were; empty: all do
    """

    kind: str
    file_name: str
    vocab_size: int
    special_ids: dict[str, int]
    end_of_text: str
    fingerprint: str
    lossy_because: str
    _encoder_choice: str

    @property
    def end_of_text_id(self) -> int:
        return self.special_ids[self.end_of_text]

    @abstractmethod
    def __contains__(self, token: str) -> bool:
        """Whether `token`, special or not, has an id."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids of `text`, without an end-of-text id."""

    @abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, on all cores."""

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; special tokens appear by name, a cut-off character as U+FFFD."""

    @abstractmethod
    def byte_lengths(self) -> NDArray[np.int64]:
        """[vocab_size]: the bytes of text that each id stands for; special tokens stand for none."""

    @abstractmethod
    def to_bytes(self) -> bytes:
        """The content of the file that `load_tokenizer` reads."""

    @abstractmethod
    def _exact_encoder(self) -> Encoder:
        """The encoder that defines the ids, on one thread."""

    @abstractmethod
    def _fast_encoder(self, exact: Encoder) -> Encoder | None:
        """A faster one, or None where there is none for this kind; DataError says why it cannot be had."""

    def encode_flat(self, texts: Sequence[str], *, check_first: bool = False) -> Flat:
        """The ids of all texts as one array, on one thread, by the fastest encoder there is.

        ids [total] and ends [len(texts)]. `check_first` compares the first texts with the exact encoder:
        for the beginning of a part, so that a small build is checked too. EncoderMismatch when a text of
        the sample differs: load the tokenizer with encoder="exact" and encode everything again.
        """
        encoder = self._encoder[0]
        if isinstance(encoder, CheckedEncoder):
            return encoder(texts, check_first)
        return encoder(texts)

    def describe_encoder(self) -> str:
        """What `encode_flat` runs, such as "gigatoken 0.10.0"; a fallback also says so on stderr."""
        encoder, fallback = self._encoder
        if fallback:
            print(f"notice: encoding with {encoder.name}, which is slower: {fallback}", file=sys.stderr)
            return f"{encoder.name} ({fallback})"
        return encoder.name

    def describe(self) -> dict[str, Any]:
        """What a dataset's manifest says of its tokenizer, beside the file's name."""
        described = {
            "fingerprint": self.fingerprint,
            "vocab_size": self.vocab_size,
            "kind": self.kind,
            "end_of_text": self.end_of_text,
            "end_of_text_id": self.end_of_text_id,
        }
        return described | ({"lossy_because": self.lossy_because} if self.lossy_because else {})

    @cached_property
    def _encoder(self) -> tuple[Encoder, str]:
        """The encoder of `encode_flat`, and why it is not the fast one, where there should be one."""
        exact = self._exact_encoder()
        if self._encoder_choice == EXACT:
            return exact, ""
        try:
            fast = self._fast_encoder(exact)
        except DataError as error:
            return exact, f"{error.message}; {error.fix}" if error.fix else error.message
        if fast is None:
            return exact, ""
        checked = CheckedEncoder(fast, exact)
        if difference := checked.first_difference([*DIFFICULT, *self.special_ids]):
            return exact, f"{fast.name} gives other ids for {difference[:40]!r}"
        return checked, ""


def end_of_text_of(special_ids: Mapping[str, int], origin: str) -> str:
    """The special token that ends documents; DataError when `origin` has none that is known to."""
    for name in _ENDS:
        if name in special_ids:
            return name
    raise DataError(
        f"{origin}: it has no special token {END_OF_TEXT}, nor one that is known to end documents "
        f"({', '.join(_ENDS[1:])})",
        f"add the special token {END_OF_TEXT} to it",
    )
