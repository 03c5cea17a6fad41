"""What asking for a reward came to: a number, or a failure with a name.

A reward that could not be found out is never 0: a policy would learn that whatever made a judge time out is
bad, or good. Failures are counted by kind; whoever asked drops the answer or asks again.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Failure = Literal["timeout", "raised", "not_finite", "malformed", "unreachable", "crashed"]
"""It took too long; its code raised; it gave nan or infinity; it gave something else than was asked for;
nobody answered; its process died."""


@dataclass(frozen=True)
class Reward:
    """Of one answer: `parts` by name and their sum; or the failure, with what is known of it."""

    parts: dict[str, float] = field(default_factory=dict)
    failure: Failure | None = None
    detail: str = ""
    deviation: float | None = None
    """Of what the members of an ensemble of reward models gave, if there are several."""

    @property
    def total(self) -> float:
        """Raises ValueError for a failure, which has no number."""
        if self.failure:
            raise ValueError(f"no reward: {self.failure}: {self.detail}")
        return math.fsum(self.parts.values())


def reward_of(name: str, value: object) -> Reward:
    """What a function gave, if it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Reward(failure="malformed", detail=f"{name} gave {value!r}, not a number")
    try:
        is_finite = math.isfinite(value)
    except OverflowError:
        is_finite = False
    if not is_finite:
        return Reward(
            failure="not_finite",
            detail=f"{name} gave {value:.3g}"
            if isinstance(value, float)
            else f"{name} gave too large a number",
        )
    return Reward({name: float(value)})


def together(rewards: Iterable[Reward], weights: dict[str, float] | None = None) -> Reward:
    """The parts of several rewards of one answer, weighted by name; a failure of one is a failure of all."""
    parts: dict[str, float] = {}
    deviation = None
    for reward in rewards:
        if reward.failure:
            return reward
        deviation = reward.deviation if deviation is None else deviation
        for name, value in reward.parts.items():
            parts[name] = value * (weights or {}).get(name, 1.0)
    return Reward(parts, deviation=deviation)


def failures(rewards: Iterable[Reward]) -> dict[str, int]:
    """How many of each kind."""
    return dict(sorted(Counter(reward.failure for reward in rewards if reward.failure).items()))
