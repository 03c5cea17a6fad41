"""Masking for masked language models: which pieces are to be predicted, and what stands in their place.

As in BERT (Devlin et al. 2019, arXiv:1810.04805): 15 % of the pieces are selected; of these 80 % are
hidden behind [MASK], 10 % replaced by a random piece, 10 % left as they are. The unit of all four draws
is the piece, or the whole word, which then is hidden, replaced or left as one.

Shapes: T pieces of a sample, W units (pieces or words), V vocabulary.
"""

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.tokenizers import Tokenizer
from seedbed.errors import DataError

SELECTED = 0.15
HIDDEN, REPLACED = 0.8, 0.1

CLS, SEP, MASK, PAD = "[CLS]", "[SEP]", "[MASK]", "[PAD]"
SENTENCE_ENDS = (".", "!", "?")


@dataclass(frozen=True)
class Vocabulary:
    """What sample building has to know of a WordPiece vocabulary."""

    cls_id: int
    sep_id: int
    mask_id: int
    pad_id: int
    ordinary_ids: NDArray[np.int64]
    """The ids that are not special: only these are selected, or put in another's place."""
    is_ordinary: NDArray[np.bool_]
    """[V]"""
    continues: NDArray[np.bool_]
    """[V] whether the piece goes on with the word of the piece before."""
    ends_sentence: NDArray[np.bool_]
    """[V]"""

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "Vocabulary":
        """That of `tokenizer`; DataError unless it is a WordPiece with [CLS], [SEP], [MASK] and [PAD]."""
        missing = [name for name in (CLS, SEP, MASK, PAD) if name not in tokenizer.special_ids]
        if tokenizer.kind != "wordpiece" or missing:
            wrong = f"its tokenizer is a {tokenizer.kind}"
            if tokenizer.kind == "wordpiece":
                wrong = f"its tokenizer has no {', '.join(missing)}"
            raise DataError(
                f"BERT samples cannot be made of this dataset: {wrong}",
                'build it with data.tokenizer_kind = "wordpiece", or give BERT\'s own tokenizer.json',
            )
        model = json.loads(tokenizer.to_bytes())["model"]
        prefix = model.get("continuing_subword_prefix") or "##"
        continues, ends_sentence = np.zeros((2, tokenizer.vocab_size), dtype=bool)
        for piece, id in model["vocab"].items():
            continues[id] = piece.startswith(prefix) and piece != prefix
            ends_sentence[id] = piece in SENTENCE_ENDS
        is_ordinary = np.zeros(tokenizer.vocab_size, dtype=bool)
        is_ordinary[list(model["vocab"].values())] = True
        is_ordinary[list(tokenizer.special_ids.values())] = False
        cls_id, sep_id, mask_id, pad_id = (tokenizer.special_ids[name] for name in (CLS, SEP, MASK, PAD))
        ordinary_ids = np.flatnonzero(is_ordinary)
        return cls(cls_id, sep_id, mask_id, pad_id, ordinary_ids, is_ordinary, continues, ends_sentence)


def mask(
    tokens: NDArray[np.int64], vocabulary: Vocabulary, whole_word: bool, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """[T] the inputs in place of `tokens`, [T] whether a piece is selected.

    Units are taken in random order until 15 % of the pieces are reached; the one that would go beyond is
    taken with just the probability that makes 15 % exact on average. Special tokens are no candidates.
    """
    candidates = np.flatnonzero(vocabulary.is_ordinary[tokens])
    inputs, selected = tokens.copy(), np.zeros(len(tokens), dtype=bool)
    if not len(candidates):
        return inputs, selected
    # [W + 1] where the units begin among the candidates. A word goes on in the very next piece.
    begins = np.ones(len(candidates), dtype=bool)
    if whole_word:
        begins[1:] = ~vocabulary.continues[tokens[candidates[1:]]] | (np.diff(candidates) > 1)
    sizes = np.diff(np.flatnonzero(begins), append=len(candidates))
    unit_of = np.cumsum(begins) - 1

    order = rng.permutation(len(sizes))
    reached = np.cumsum(sizes[order])
    wanted = SELECTED * len(candidates)
    num_taken = int(np.searchsorted(reached, wanted, side="right"))
    missing = wanted - (reached[num_taken - 1] if num_taken else 0)
    num_taken += int(rng.random() * sizes[order[num_taken]] < missing)

    taken = np.zeros(len(sizes), dtype=bool)
    taken[order[:num_taken]] = True
    fate = rng.random(len(sizes))[unit_of]
    others = vocabulary.ordinary_ids[rng.integers(len(vocabulary.ordinary_ids), size=len(candidates))]
    chosen = taken[unit_of]
    selected[candidates[chosen]] = True
    hidden, replaced = chosen & (fate < HIDDEN), chosen & (fate >= HIDDEN) & (fate < HIDDEN + REPLACED)
    inputs[candidates[hidden]] = vocabulary.mask_id
    inputs[candidates[replaced]] = others[replaced]
    return inputs, selected
