"""Span corruption: a text with holes, and what was in them (Raffel et al. 2020, T5, arXiv:1910.10683).

    text      Thank you for inviting me to your party last week
    inputs    Thank you <X> me to your party <Y> week </s>
    targets   <X> for inviting <Y> last <Z> </s>

15 % of the tokens are hidden, in spans of 3 on average. How many spans there are and how much they hide
depends on the length of the text alone, so that batches need no padding; all ways to cut so many tokens
into so many spans, and to place them with at least one token between, are equally likely. (T5's released
code differs in this: every text begins with a kept token and ends with a hidden one, and targets have no
last sentinel.) The holes of a sample belong to (seed, "spans", epoch, sample).

Shapes: T tokens of a text, S spans.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seedbed.errors import ConfigError
from seedbed.randomness import generator


class Corrupted(NamedTuple):
    """What the encoder reads and what the decoder has to write, both int64 and ended by `end_id`."""

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]


@dataclass(frozen=True)
class SpanCorruption:
    """How texts are corrupted."""

    sentinels: tuple[int, ...]
    """Tokens that stand for the holes, in order of use: one more than there are spans."""
    end_id: int
    noise_density: float = 0.15
    """Share of the tokens that is hidden."""
    mean_span_length: float = 3.0

    def corrupt(self, tokens_T: NDArray[np.int64], seed: int, epoch: int, sample: int) -> Corrupted:
        """`tokens_T` with its holes; ConfigError when they are more than there are sentinels."""
        self.check(len(tokens_T))
        num_noise, num_spans = self._counts(len(tokens_T))
        rng = generator(seed, "spans", epoch, sample)
        spans_S = _composition(num_noise, num_spans, rng)
        # One more than spans; the first and the last of them may be empty, and no other.
        gaps = _composition(len(tokens_T) - num_noise + 2, num_spans + 1, rng)
        gaps[[0, -1]] -= 1
        lengths = np.empty(2 * num_spans + 1, np.int64)
        lengths[0::2], lengths[1::2] = gaps, spans_S
        pieces = np.split(tokens_T, lengths.cumsum()[:-1])
        marks = [np.array([id]) for id in self.sentinels[: num_spans + 1]]
        end = np.array([self.end_id])
        kept, hidden = pieces[0::2], pieces[1::2]
        return Corrupted(
            np.concatenate([*_alternate(kept, marks[:-1]), end]),
            np.concatenate([*_alternate(marks, hidden), end]),
        )

    def check(self, num_tokens: int) -> None:
        """Raises ConfigError when a text of `num_tokens` gets more holes than there are sentinels."""
        _, num_spans = self._counts(num_tokens)
        if num_spans >= len(self.sentinels):
            raise ConfigError(
                f"{num_tokens} tokens get {num_spans} spans, which take {num_spans + 1} sentinels; "
                f"there are {len(self.sentinels)}",
                "lower model.context, or raise objective.mean_span_length",
            )

    def lengths(self, num_tokens: int) -> tuple[int, int]:
        """(inputs, targets) that a text of `num_tokens` becomes."""
        num_noise, num_spans = self._counts(num_tokens)
        return num_tokens - num_noise + num_spans + 1, num_noise + num_spans + 2

    def window(self, num_inputs: int) -> int:
        """The longest text whose corrupted form has at most `num_inputs` tokens."""
        if num_inputs < self.lengths(2)[0]:
            raise ConfigError(
                f"a context of {num_inputs} tokens is too short for span corruption",
                f"use at least {self.lengths(2)[0]}",
            )
        num_tokens = num_inputs
        while self.lengths(num_tokens + 1)[0] <= num_inputs:
            num_tokens += 1
        return num_tokens

    def _counts(self, num_tokens: int) -> tuple[int, int]:
        """(hidden tokens, spans): at least one token is hidden and one kept, and spans do not touch."""
        num_noise = min(max(1, round(num_tokens * self.noise_density)), num_tokens - 1)
        num_spans = max(1, round(num_noise / self.mean_span_length))
        return num_noise, min(num_spans, num_noise, num_tokens - num_noise + 1)


def _composition(total: int, num_parts: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`total` as an ordered sum of `num_parts` positive numbers, each such sum equally likely."""
    cuts = 1 + np.sort(rng.choice(total - 1, num_parts - 1, replace=False))
    return np.diff(cuts, prepend=0, append=total)


def _alternate(longer: list[NDArray[np.int64]], shorter: list[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    """longer[0], shorter[0], longer[1], ..., longer[-1]."""
    out = [longer[0]]
    for before, after in zip(shorter, longer[1:], strict=True):
        out += [before, after]
    return out
