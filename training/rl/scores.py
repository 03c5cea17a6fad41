"""From rewards to the numbers that are learned from, and what is told of them."""

import math
from collections.abc import Sequence
from statistics import fmean, pstdev
from typing import Any

from training.rl.outcomes import failures
from training.rl.rollouts import Rollout
from training.rl.settings import RlConfig


class RewardMoments:
    """Of all rewards so far: number, mean and sum of squares around it (Welford 1962)."""

    def __init__(self) -> None:
        self._number, self._mean, self._squares = 0.0, 0.0, 0.0

    @property
    def deviation(self) -> float:
        return math.sqrt(self._squares / self._number) if self._number else 0.0

    def add(self, values: Sequence[float]) -> None:
        for value in values:
            self._number += 1
            change = value - self._mean
            self._mean += change / self._number
            self._squares += change * (value - self._mean)

    def scores(self, rollouts: Sequence[Rollout], settings: RlConfig) -> list[float]:
        """Rewards less the penalty of an answer that was cut, scaled, and clipped."""
        totals = [
            one.reward.total - settings.missing_end_penalty * (not one.ended)
            for one in rollouts
            if one.reward
        ]
        self.add(totals)
        scale = self.deviation if settings.scale_rewards and self.deviation > 0 else 1.0
        limit = settings.clip_reward or math.inf
        return [min(max(total / scale, -limit), limit) for total in totals]

    def state(self) -> list[float]:
        return [self._number, self._mean, self._squares]

    def load_state(self, state: Sequence[float]) -> None:
        self._number, self._mean, self._squares = state


def summary(kept: Sequence[Rollout], left_out: Sequence[Rollout]) -> dict[str, Any]:
    """Of the answers of an iteration, for the record."""
    totals = [one.reward.total for one in kept if one.reward]
    parts: dict[str, list[float]] = {}
    for one in kept:
        for name, value in one.reward.parts.items() if one.reward else ():
            parts.setdefault(name, []).append(value)
    deviations = [one.reward.deviation for one in kept if one.reward and one.reward.deviation is not None]
    missing = failures(one.reward for one in left_out if one.reward)
    every = [*kept, *left_out]
    return {
        "answers": len(kept),
        "left_out": len(left_out),
        "failures": missing,
        "reward": fmean(totals),
        "reward_deviation": pstdev(totals),
        "disagreement": fmean(deviations) if deviations else None,
        "reward_parts": {name: fmean(values) for name, values in parts.items()},
        "answer_tokens": fmean(len(one.answer) for one in every),
        "ended": fmean(one.ended for one in every),
        "log_prob": fmean(fmean(one.log_probs) for one in every),
    }
