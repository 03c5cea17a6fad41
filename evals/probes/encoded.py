"""Examples as rows of pieces, as BERT reads them: [CLS] words [SEP], or [CLS] words [SEP] others [SEP].

Shapes: B rows, T pieces, P places (first pieces of the words that something is said of).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from data.bert_masking import Vocabulary
from data.tokenizers import Tokenizer
from evals.probes.examples import Example


@dataclass(frozen=True)
class Encoded:
    """One example; its targets are numbers."""

    example: Example
    pieces: list[int]
    first_of_other: int
    """Where the second segment begins; the number of pieces where there is none."""
    places: list[int]
    """The first piece of each tagged word, or of each word that an answer may be made of."""
    targets: list[int]
    """The label; the tags; or the first and the last of `places` that are the answer."""


@dataclass(frozen=True)
class Rows:
    """Some examples as tensors."""

    tokens_BT: Tensor
    segments_BT: Tensor
    valid_BT: Tensor
    places_BP: Tensor
    """Padded with 0."""
    is_place_BP: Tensor
    targets_BP: Tensor
    """As `Encoded.targets`, padded with -100."""


class Encoder:
    """With a tokenizer's words, up to a context, and the labels that were seen in training."""

    def __init__(self, tokenizer: Tokenizer, context: int, train: Sequence[Example]) -> None:
        self.tokenizer, self.context, self.words = tokenizer, context, Vocabulary.of(tokenizer)
        seen = {label for one in train for label in (one.tags if one.kind == "tagging" else (one.label,))}
        self.labels = sorted(seen)
        self._numbers = {label: number for number, label in enumerate(self.labels)}
        self.longest_answer = 1 + max(last - first for first, last in (one.span for one in train))
        """Words."""
        self._pieces: dict[str, list[int]] = {}

    def encode(self, one: Example) -> Encoded | None:
        """None where a label is unknown, or the answer does not fit the context."""
        first, second = [self._of(word) for word in one.words], [self._of(word) for word in one.other]
        room = self.context - 2 - bool(second)
        kept = _fitting(second, max(room // 2, room - sum(map(len, first))))
        first = _fitting(first, room - sum(map(len, kept)))
        pieces = [self.words.cls_id]
        places = _appended(pieces, first)
        pieces.append(self.words.sep_id)
        first_of_other = len(pieces)
        others = _appended(pieces, kept)
        if kept:
            pieces.append(self.words.sep_id)
        if one.kind == "span":
            fits = one.span[1] < len(kept)
            return Encoded(one, pieces, first_of_other, others, list(one.span)) if fits else None
        names = one.tags[: len(first)] if one.kind == "tagging" else (one.label,)
        if any(name not in self._numbers for name in names):
            return None
        return Encoded(one, pieces, first_of_other, places, [self._numbers[name] for name in names])

    def _of(self, word: str) -> list[int]:
        if word not in self._pieces:
            self._pieces[word] = list(self.tokenizer.encode(word)) or [self.words.mask_id]
        return self._pieces[word]

    def rows(self, examples: Sequence[Encoded]) -> Rows:
        longest = max(len(one.pieces) for one in examples)
        tokens = [one.pieces + [self.words.pad_id] * (longest - len(one.pieces)) for one in examples]
        at_T = torch.arange(longest)
        ends_B1 = torch.tensor([[len(one.pieces)] for one in examples])
        others_B1 = torch.tensor([[one.first_of_other] for one in examples])
        valid_BT = at_T < ends_B1
        return Rows(
            torch.tensor(tokens),
            ((at_T >= others_B1) & valid_BT).long(),
            valid_BT,
            _padded([one.places for one in examples], 0),
            _padded([[1] * len(one.places) for one in examples], 0).bool(),
            _padded([one.targets for one in examples], -100),
        )


def _appended(pieces: list[int], words: list[list[int]]) -> list[int]:
    """Where each of them begins, once it stands among the pieces."""
    places = []
    for word in words:
        places.append(len(pieces))
        pieces += word
    return places


def _fitting(words: list[list[int]], room: int) -> list[list[int]]:
    """The first of them, as many as there is room for."""
    kept, used = [], 0
    for word in words:
        if used + len(word) > room:
            break
        kept.append(word)
        used += len(word)
    return kept


def _padded(rows: Sequence[Sequence[int]], filler: int) -> Tensor:
    longest = max(1, *(len(row) for row in rows)) if rows else 1
    return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows])
