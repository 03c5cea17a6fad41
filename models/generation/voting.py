"""Self-consistency: many sampled answers, and the one that most of them come to (Wang et al. 2022)."""

from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Generic, NamedTuple, TypeVar

Answer = TypeVar("Answer", bound=Hashable)


class Vote(NamedTuple, Generic[Answer]):
    """Outcome of a vote."""

    answer: Answer | None
    """The most frequent answer, the earliest of several such; None when there was none."""
    share: float
    """Its part of all votes, those without an answer included."""


def vote(answers: Iterable[Answer | None]) -> Vote[Answer]:
    """Majority over extracted answers; None stands for a text that no answer could be taken from."""
    given = list(answers)
    counts = Counter(answer for answer in given if answer is not None)
    if not counts:
        return Vote(None, 0.0)
    answer, times = counts.most_common(1)[0]
    return Vote(answer, times / len(given))
