"""Training of every kind of tokenizer: the same texts in the same order give the same file anywhere."""

import io
from collections.abc import Callable, Iterator
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from data.packages import package_missing
from data.tokenizers.base import END_OF_TEXT, Tokenizer
from data.tokenizers.sentencepiece import SPACE, SentencePieceTokenizer
from data.tokenizers.tokenizer_json import JsonTokenizer
from data.tokenizers.wordpiece_training import wordpiece_definition
from seedbed.errors import DataError, nearest

_ORIGIN = "the trained tokenizer"
# Each thread sums over its share of the words, so their number decides how the sums are rounded.
_SENTENCEPIECE_THREADS = 16
# Share of all characters that get a piece of their own; the rest go through their bytes.
_CHARACTER_COVERAGE = 0.9995


def train_tokenizer(texts: Iterator[str], vocab_size: int, kind: str = "byte-bpe") -> Tokenizer:
    """A tokenizer of at most `vocab_size` tokens, special ones included.

    `kind` is "byte-bpe", "unigram", "sentencepiece-bpe" or "wordpiece". A text of few different words has
    less to learn, and gives a smaller vocabulary. DataError when `vocab_size` or the text is too small.
    """
    if kind not in _TRAINERS:
        raise DataError(
            f"there is no tokenizer kind {kind!r}", f"use {nearest(kind, _TRAINERS) or ', '.join(_TRAINERS)}"
        )
    return _TRAINERS[kind](texts, vocab_size)


def _byte_bpe(texts: Iterator[str], vocab_size: int) -> Tokenizer:
    """Sennrich et al. 2016, over bytes (Radford et al. 2019).

    Pre-tokens are split as GPT-2 does, without a space put before the text.
    """
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return JsonTokenizer(backend.to_str(), _ORIGIN)


def _wordpiece(texts: Iterator[str], vocab_size: int) -> Tokenizer:
    return JsonTokenizer(wordpiece_definition(texts, vocab_size), _ORIGIN)


def _unigram(texts: Iterator[str], vocab_size: int) -> Tokenizer:
    """Kudo 2018."""
    return _sentencepiece(texts, vocab_size, "unigram")


def _sentencepiece_bpe(texts: Iterator[str], vocab_size: int) -> Tokenizer:
    """Sennrich et al. 2016, as SentencePiece does it (Kudo and Richardson 2018)."""
    return _sentencepiece(texts, vocab_size, "bpe")


_TRAINERS: dict[str, Callable[[Iterator[str], int], Tokenizer]] = {
    "byte-bpe": _byte_bpe,
    "unigram": _unigram,
    "sentencepiece-bpe": _sentencepiece_bpe,
    "wordpiece": _wordpiece,
}


def _sentencepiece(texts: Iterator[str], vocab_size: int, model_type: str) -> Tokenizer:
    """A model that neither normalises text nor adds or joins spaces, with byte fallback: nothing is lost."""
    try:
        import sentencepiece
    except ImportError:
        raise package_missing(
            "training a SentencePiece tokenizer",
            "sentencepiece",
            "sentencepiece",
            "data.tokenizer_kind=byte-bpe",
        ) from None
    model = io.BytesIO()
    sentences = _Sentences(texts)
    settings: dict[str, Any] = {
        "model_type": model_type,
        "vocab_size": vocab_size,
        "hard_vocab_limit": False,
        "byte_fallback": True,
        "character_coverage": _CHARACTER_COVERAGE,
        "normalization_rule_name": "identity",
        "add_dummy_prefix": False,
        "remove_extra_whitespaces": False,
        "allow_whitespace_only_pieces": True,
        "max_sentence_length": 2**30,
        "num_threads": _SENTENCEPIECE_THREADS,
        "minloglevel": 2,
    }
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences), model_writer=model, **settings
        )
    except RuntimeError as error:
        if sentences.error is not None:
            raise sentences.error from None
        raise DataError(
            f"cannot train a SentencePiece {model_type} tokenizer of {vocab_size} pieces ({error})",
            "raise data.vocab_size, or give it more text",
        ) from error
    return SentencePieceTokenizer(model.getvalue(), _ORIGIN)


class _Sentences:
    """Texts for the trainer, cut at "▁", which it would take for a space. `error` ended them early."""

    def __init__(self, texts: Iterator[str]) -> None:
        self._texts = texts
        self.error: BaseException | None = None

    def __iter__(self) -> Iterator[str]:
        try:
            for text in self._texts:
                yield from filter(None, text.split(SPACE))
        except BaseException as error:
            self.error = error
            raise
