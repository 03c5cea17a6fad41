"""BERT samples: [CLS] A [SEP] B [SEP], with pieces to predict and a next sentence to judge.

A sample is a stretch of one document, cut in two near its middle at the end of a sentence. B is what
follows A, or, in half of the samples, as much text of another document (other `Pairs` can be asked for).
A split is divided into windows; each epoch goes through all in a shuffled order, and takes from a window
the document that a random token of it belongs to, so that over the epochs documents count by their
lengths. All draws of a sample belong to (seed, "bert", epoch, window): another epoch masks other pieces,
and the same sample is always the same.

Shapes: B samples, T = context pieces per sample.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data.bert_masking import Vocabulary, mask
from data.order import EpochOrder
from data.split import Split
from seedbed.errors import ConfigError, TooLittleData
from seedbed.randomness import generator

# [CLS] A [SEP] B [SEP]
NUM_SEPARATORS = 3

# Draws of a place before another document is taken without drawing: in a split of many documents one or
# two do; in one that a single document nearly fills, few of them find another.
MAX_DRAWS = 16


@dataclass(frozen=True)
class BertBatch:
    """What a masked language model learns from at once."""

    tokens: NDArray[np.int64]
    """[B, T] inputs, masked and padded."""
    segments: NDArray[np.int32]
    """[B, T] 0 for [CLS], A and its [SEP]; 1 for B and its own; 0 for padding."""
    valid: NDArray[np.bool_]
    """[B, T] whether this is not padding."""
    labels: NDArray[np.int64]
    """[B, T] the piece that was there, where one is to be predicted; else 0."""
    weights: NDArray[np.float32]
    """[B, T] 1 where a piece is to be predicted, else 0."""
    next_sentence: NDArray[np.int64]
    """[B] 1 when B follows A in its document, 0 when it comes from another or precedes A."""
    pair_weights: NDArray[np.float32]
    """[B] 1 where there is a pair to judge, else 0."""

    def __len__(self) -> int:
        return len(self.tokens)


Pairs = Literal["next_sentence", "sentence_order", "none"]
"""B is from another document in half of the samples (Devlin et al. 2018, BERT); A and B change places in
half of them (Lan et al. 2019, ALBERT); or there is only A, the whole stretch (Liu et al. 2019, RoBERTa)."""


@dataclass(frozen=True)
class Pair:
    """A sample before masking: where its two halves lie in the split, as (start, stop)."""

    first: tuple[int, int]
    second: tuple[int, int]
    is_next: bool


class BertStream:
    """Samples over a split, epoch after epoch without end.

    TooLittleData when the split holds fewer than two documents and B is to come from another one.
    """

    def __init__(
        self,
        split: Split,
        vocabulary: Vocabulary,
        context: int,
        seed: int,
        *,
        whole_word: bool = False,
        pairs: Pairs = "next_sentence",
        shuffle: bool = True,
    ) -> None:
        if context < NUM_SEPARATORS + 2:
            raise ConfigError(
                f"model.context = {context} is too short for [CLS] A [SEP] B [SEP]",
                f"use at least {NUM_SEPARATORS + 2}",
            )
        if split.num_documents < (2 if pairs == "next_sentence" else 1):
            raise TooLittleData(
                f"the {split.name} split has {split.num_documents} document, and next-sentence samples need "
                "text of another one",
                "give more documents",
            )
        self.split, self.vocabulary, self.context, self.seed = split, vocabulary, context, seed
        self.whole_word, self.pairs = whole_word, pairs
        self._room = context - NUM_SEPARATORS
        self.num_samples = max(1, split.num_tokens // self._room)
        self._order = EpochOrder(self.num_samples, seed, shuffle)

    def batch(self, position: int, count: int) -> BertBatch:
        """Samples position .. position + count - 1 of the endless stream."""
        shape, words = (count, self.context), self.vocabulary
        tokens, labels = np.full(shape, words.pad_id, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        segments, valid = np.zeros(shape, dtype=np.int32), np.zeros(shape, dtype=bool)
        weights, next_sentence = np.zeros(shape, dtype=np.float32), np.zeros(count, dtype=np.int64)
        epochs, windows = self._order.units(position, count)
        for row, (epoch, window) in enumerate(zip(epochs.tolist(), windows.tolist(), strict=True)):
            rng = generator(self.seed, "bert", epoch, window)
            pair = self._pair(window, rng)
            first, second = self.split.tokens(*pair.first), self.split.tokens(*pair.second)
            second = second if self.pairs == "none" else np.append(second, words.sep_id)
            text = np.concatenate([[words.cls_id], first, [words.sep_id], second])
            inputs, selected = mask(text, words, self.whole_word, rng)
            here = slice(0, len(text))
            tokens[row, here], valid[row, here] = inputs, True
            segments[row, len(first) + 2 : len(text)] = 1
            labels[row, here], weights[row, here] = np.where(selected, text, 0), selected
            next_sentence[row] = pair.is_next
        pair_weights = np.full(count, self.pairs != "none", dtype=np.float32)
        return BertBatch(tokens, segments, valid, labels, weights, next_sentence, pair_weights)

    def pair(self, position: int) -> Pair:
        """Where the halves of one sample come from."""
        epochs, windows = self._order.units(position, 1)
        return self._pair(int(windows[0]), generator(self.seed, "bert", int(epochs[0]), int(windows[0])))

    def _pair(self, window: int, rng: np.random.Generator) -> Pair:
        start, stop = self._stretch(window, rng)
        if self.pairs == "none":
            return Pair((start, stop), (stop, stop), True)
        cut = start + self._cut(self.split.tokens(start, stop))
        as_it_is = rng.random() < 0.5
        if self.pairs == "sentence_order" and not as_it_is:
            return Pair((cut, stop), (start, cut), False)
        # A single piece has nothing that follows it.
        if self.pairs == "next_sentence" and not (as_it_is and cut < stop):
            return Pair((start, cut), self._elsewhere(start, max(1, stop - cut), rng), False)
        return Pair((start, cut), (cut, stop), True)

    def _stretch(self, window: int, rng: np.random.Generator) -> tuple[int, int]:
        """The part of one document that a window gives, without its end-of-text."""
        start = window * self._room
        stop = min(start + self._room, self.split.num_tokens)
        starts = self.split.documents_starting_in(start + 1, stop)
        edges = np.concatenate([[start], starts, [stop]])
        lengths = np.diff(edges)
        drawn = int(np.searchsorted(edges, rng.integers(start, stop), side="right")) - 1
        # Of a document that only just begins or ends here, there is nothing to cut in two.
        if lengths[drawn] < NUM_SEPARATORS:
            drawn = int(lengths.argmax())
        return self._trimmed(int(edges[drawn]), int(edges[drawn + 1]))

    def _cut(self, tokens: NDArray[np.int64]) -> int:
        """Where to cut in two: after the sentence that ends nearest to the middle, or else between words."""
        words, size = self.vocabulary, len(tokens)
        if size < 2:
            return size
        places = np.arange(1, size)
        between_words = ~words.continues[tokens[1:]]
        central = (places >= size / 4) & (places <= size * 3 / 4)
        for allowed in (between_words & central & words.ends_sentence[tokens[:-1]], between_words):
            if allowed.any():
                found = places[allowed]
                return int(found[np.abs(found - size / 2).argmin()])
        return size // 2

    def _elsewhere(self, here: int, length: int, rng: np.random.Generator) -> tuple[int, int]:
        """About `length` tokens of a document that token `here` is not in, begun at a word where it can."""
        for _ in range(MAX_DRAWS):
            place = int(rng.integers(self.split.num_tokens))
            if self._next_document(*sorted((here, place))) is not None:
                break
        else:
            place = self._next_document(here, self.split.num_tokens - 1) or 0
        low, high = max(0, place - length), min(self.split.num_tokens, place + length + 1)
        starts = self.split.documents_starting_in(low, high)
        begin = int(starts[starts <= place].max(initial=low))
        begin, end = self._trimmed(begin, int(starts[starts > place].min(initial=high)))
        start = max(begin, min(place, end - length))
        return self._trimmed(start, min(start + length, end))

    def _trimmed(self, start: int, stop: int) -> tuple[int, int]:
        """The same stretch without the rest of a word at its beginning and an end-of-text at its end."""
        tokens = self.split.tokens(start, stop)
        if len(tokens) and tokens[-1] == self.split.end_of_text_id:
            tokens = tokens[:-1]
        begin = int(self.vocabulary.continues[tokens].argmin()) if len(tokens) else 0
        return start + begin, start + len(tokens)

    def _next_document(self, start: int, stop: int) -> int | None:
        """Where the first document after the one of token `start` begins, if that is at `stop` or before.

        Looks ahead in steps that double, so that no more is read than the documents are long.
        """
        step = 4096
        while start < stop:
            until = min(start + step, stop)
            starts = self.split.documents_starting_in(start + 1, until + 1)
            if len(starts):
                return int(starts[0])
            start, step = until, step * 2
        return None
