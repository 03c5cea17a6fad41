"""Labelled documents for a classifier: [CLS] text [SEP], and which label the text has.

A sample is a document. What does not fit into the context is left out: in training a stretch that begins at
a random place of the document, belonging to (seed, "crop", epoch, document); otherwise what comes first.

Shapes: B samples, T = context pieces per sample.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.bert_masking import Vocabulary
from data.order import EpochOrder
from data.split import Split
from seedbed.errors import ConfigError, TooLittleData
from seedbed.randomness import generator

# [CLS] text [SEP]
NUM_SEPARATORS = 2


@dataclass(frozen=True)
class LabelledBatch:
    """What a classifier learns from at once."""

    tokens: NDArray[np.int64]
    """[B, T] padded."""
    valid: NDArray[np.bool_]
    """[B, T] whether this is not padding."""
    labels: NDArray[np.int64]
    """[B] the number of each sample's label."""
    weights: NDArray[np.float32]
    """[B] how much each sample counts."""

    def __len__(self) -> int:
        return len(self.tokens)


def count_labels(splits: Iterable[Split]) -> Counter[str]:
    """How many documents have each label."""
    return Counter(
        row["label"] for split in splits for row, _ in split.documents() if row.get("label") is not None
    )


class LabelledStream:
    """The documents of a split that have one of `labels`, epoch after epoch without end.

    TooLittleData when there are none.
    """

    def __init__(
        self,
        split: Split,
        labels: tuple[str, ...],
        vocabulary: Vocabulary,
        context: int,
        seed: int,
        *,
        shuffle: bool = True,
        crop_at_random: bool = True,
    ) -> None:
        if context <= NUM_SEPARATORS:
            raise ConfigError(
                f"model.context = {context} has no room for text beside [CLS] and [SEP]",
                f"use at least {NUM_SEPARATORS + 1}",
            )
        self.context, self._split, self._vocabulary, self._seed = context, split, vocabulary, seed
        self._crop_at_random = crop_at_random
        numbers = {label: number for number, label in enumerate(labels)}
        found = [
            numbers.get(row.get("label", ""), -1) if "label" in row else -1 for row, _ in split.documents()
        ]
        labels_N = np.array(found, dtype=np.int64)
        lengths = split.lengths()[:, 0]
        chosen = labels_N >= 0
        if not chosen.any():
            raise TooLittleData(
                f"the {split.name} split has no document with a label",
                "build the dataset with data.label_field set to the field that holds labels",
            )
        # Without the end-of-text id that ends each.
        self._stops = np.cumsum(lengths)[chosen] - 1
        self._starts = self._stops - lengths[chosen] + 1
        self._labels = labels_N[chosen]
        self.num_samples = len(self._labels)
        self._order = EpochOrder(self.num_samples, seed, shuffle)

    def batch(self, position: int, count: int) -> LabelledBatch:
        """Samples position .. position + count - 1 of the endless stream."""
        words, room = self._vocabulary, self.context - NUM_SEPARATORS
        tokens = np.full((count, self.context), words.pad_id, dtype=np.int64)
        valid = np.zeros(tokens.shape, dtype=bool)
        epochs, documents = self._order.units(position, count)
        for row, (epoch, document) in enumerate(zip(epochs.tolist(), documents.tolist(), strict=True)):
            start, stop = int(self._starts[document]), int(self._stops[document])
            if self._crop_at_random and stop - start > room:
                start += int(generator(self._seed, "crop", epoch, document).integers(stop - start - room + 1))
            text = self._split.tokens(start, min(stop, start + room))
            tokens[row, : len(text) + NUM_SEPARATORS] = [words.cls_id, *text, words.sep_id]
            valid[row, : len(text) + NUM_SEPARATORS] = True
        return LabelledBatch(tokens, valid, self._labels[documents], np.ones(count, dtype=np.float32))
