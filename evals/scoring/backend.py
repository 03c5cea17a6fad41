"""Who computes with tokens: the protocol that models of any kind and number of processes fulfil.

A score is a function of its span alone (and of the preamble that all spans of a call share): how many are
worked on at a time, in which order and on which rank changes no bit on a CPU in fp32.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from models.generation import Completion, Request
from seedbed.errors import DataError

Advance = Callable[[int], None]
"""Hears how many more spans or answers are done."""

MIN_SHARED = 16
"""Tokens that a context must have to be worth reading by itself."""


@dataclass(frozen=True)
class Span:
    """Tokens after tokens: each of `continuation` is scored after all that come before it."""

    item: str
    context: tuple[int, ...]
    """At least one."""
    continuation: tuple[int, ...]
    """At least one."""

    @property
    def num_inputs(self) -> int:
        """Tokens that the model reads: all but the last."""
        return len(self.context) + len(self.continuation) - 1


class SpanScore(NamedTuple):
    """Of one span."""

    nats: float
    """log p(continuation | context), summed in float64."""
    is_greedy: bool


class Backend(Protocol):
    """A model that reads tokens."""

    context: int
    """The most tokens that it reads at once."""

    def score(
        self, spans: Sequence[Span], preamble: int = 0, advance: Advance | None = None
    ) -> list[SpanScore]:
        """The score of each span, in order; all contexts begin with the same `preamble` tokens.

        DataError, with the name of the item, where the model's output holds a number that is not finite.
        """
        ...

    def complete(self, requests: Sequence[Request], advance: Advance | None = None) -> list[Completion]:
        """The answers, in the order of `requests`."""
        ...


def shared_preamble(spans: Sequence[Span]) -> int:
    """Tokens that all contexts begin with, such as the examples of a few-shot prompt.

    0 where they are too few to be read apart, or where there is nothing to share them with.
    """
    contexts = {span.context for span in spans}
    if len(contexts) < 2:
        return 0
    # The last token of a context is read with it: what it says predicts the continuation.
    length = min(common_length(min(contexts), max(contexts)), *(len(context) - 1 for context in contexts))
    return length if length >= MIN_SHARED else 0


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Tokens that both begin with."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(first), len(second)))


def grouped(spans: Sequence[Span]) -> list[list[int]]:
    """Numbers of spans with one context, groups with the longest texts first."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, span in enumerate(spans):
        groups.setdefault(span.context, []).append(number)
    return sorted(groups.values(), key=lambda group: -max(spans[number].num_inputs for number in group))


def total(item: str, log_probs: Sequence[float]) -> float:
    """Their sum; DataError with the name of the item unless all are finite."""
    if wrong := sum(not math.isfinite(value) for value in log_probs):
        raise DataError(
            f"item {item!r} has no log-likelihood: that of {wrong} of {len(log_probs)} tokens is not finite",
            "score another checkpoint: this one's weights are not sound",
        )
    return math.fsum(log_probs)
