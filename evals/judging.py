"""What judges say of answers: win rates, ratings on a scale, and how far the judge itself can be trusted.

A judge is a language model behind an endpoint (`training.rl.llm_judge`, which asks in both orders and takes a
verdict that turns with the order for a tie), or reward models. Several comparisons of answers to one prompt
are one cluster. Ratings of many models from who beat whom are in `evals.ratings`.

Shapes: N comparisons, C categories.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from evals.intervals import Array, Clusters, Measured, Summed, clusters_of, mean_of, measure
from seedbed.errors import DataError
from training.rewards.scoring import RewardScorer
from training.rl.llm_judge import Choice, Pair, Verdict

WORTH: dict[Choice, float] = {"first": 1.0, "tie": 0.5, "second": 0.0}


class Judge(Protocol):
    """Such as `LlmJudge`."""

    def verdicts(self, pairs: Sequence[Pair]) -> list[Verdict]: ...


class RewardJudge:
    """Reward models as the judge of tokens: the answer with more reward wins; order does not matter to it."""

    def __init__(self, scorer: RewardScorer, margin: float = 0.0) -> None:
        """Rewards that differ by at most `margin` are a tie."""
        self.scorer, self.margin = scorer, margin

    def verdicts(
        self, first: Sequence[NDArray[np.int64]], second: Sequence[NDArray[np.int64]]
    ) -> list[Verdict]:
        """Of pairs of prompt and answer, as `RewardScorer.score` takes them."""
        rewards_N = self.scorer.score([*first, *second])
        return [
            Verdict(choice_of(a, b, self.margin))
            for a, b in zip(rewards_N[: len(first)].tolist(), rewards_N[len(first) :].tolist(), strict=True)
        ]


def choice_of(first: float, second: float, margin: float = 0.0) -> Choice:
    """Which of two scores is greater, by more than `margin`."""
    if abs(first - second) <= margin:
        return "tie"
    return "first" if first > second else "second"


@dataclass(frozen=True)
class WinRate:
    """How often the first answers are preferred, a tie counting half."""

    rate: Measured
    wins: int
    ties: int
    losses: int
    inconsistent: int
    """Ties that are some because the verdict turned with the order."""
    failed: int
    """Pairs without a verdict; they are in no rate."""

    def as_json(self) -> dict[str, Any]:
        return {**self.__dict__, "rate": self.rate.as_json()}


def win_rate(verdicts: Sequence[Verdict], prompts: Sequence[Hashable] | None = None) -> WinRate:
    """Of the first side; `prompts` says which comparisons share one. DataError when no pair has a verdict."""
    every = range(len(verdicts)) if prompts is None else prompts
    known = [(one, prompt) for one, prompt in zip(verdicts, every, strict=True) if one.choice is not None]
    if not known:
        kinds = Counter(str(one.failure) for one in verdicts)
        raise DataError(
            f"none of {len(verdicts)} comparisons has a verdict ({dict(kinds)})",
            "look at the judge's endpoint",
        )
    worth = [WORTH[one.choice] for one, _ in known if one.choice is not None]
    counts = Counter(one.choice for one, _ in known)
    return WinRate(
        rate=measure(mean_of(worth, "share"), clusters_of([prompt for _, prompt in known])),
        wins=counts["first"],
        ties=counts["tie"],
        losses=counts["second"],
        inconsistent=sum(not one.is_consistent for one, _ in known),
        failed=len(verdicts) - len(known),
    )


def compared_by(
    judge: Judge, prompts: Sequence[str], first: Sequence[str], second: Sequence[str]
) -> tuple[WinRate, list[Verdict]]:
    """Ask a judge of the answers to each prompt, in both orders where it is a language model."""
    pairs = [Pair(*texts) for texts in zip(prompts, first, second, strict=True)]
    verdicts = judge.verdicts(pairs)
    return win_rate(verdicts, prompts), verdicts


def likert(
    ratings: Sequence[int], clusters: Clusters, lowest: int = 1, highest: int = 5
) -> tuple[Measured, dict[int, Measured]]:
    """The mean on a scale of whole numbers, and the share of each; a mean alone hides raters who disagree.

    DataError for a rating beside the scale.
    """
    ratings_N = np.asarray(ratings)
    if beside := sorted(set(ratings_N.tolist()) - set(range(lowest, highest + 1))):
        raise DataError(
            f"ratings from {lowest} to {highest} hold {beside}", "say the scale that was asked for"
        )
    width = highest - lowest
    found = measure(mean_of((ratings_N - lowest) / width, "share"), clusters)
    mean = Measured(
        value=lowest + width * found.value,
        low=lowest + width * found.low,
        high=lowest + width * found.high,
        standard_error=width * found.standard_error,
        freedom=found.freedom,
        items=found.items,
        clusters=found.clusters,
        over=found.over,
    )
    shares = {
        rating: measure(mean_of((ratings_N == rating).astype(np.float64), "share"), clusters)
        for rating in range(lowest, highest + 1)
    }
    return mean, shares


@dataclass(frozen=True)
class Agreement:
    """A judge beside gold labels."""

    share: Measured
    kappa: Measured
    """Cohen's: 0 for a judge who guesses with the right frequencies, 1 for one who is always right."""
    confusion: dict[str, dict[str, int]]
    """By gold, then by what the judge says."""


def agreement(
    judged: Sequence[str],
    gold: Sequence[str],
    clusters: Clusters,
    categories: Sequence[str] = get_args(Choice),
) -> Agreement:
    """Of labels in `categories`, by default the choices of a comparison."""
    number = {name: place for place, name in enumerate(categories)}
    if unknown := sorted((set(judged) | set(gold)) - set(number)):
        raise DataError(f"{unknown} is not among the categories {list(categories)}", "name all categories")
    given_N, wanted_N = (np.array([number[one] for one in side], dtype=np.int64) for side in (judged, gold))
    table_NK = np.zeros((len(given_N), len(categories) ** 2))
    table_NK[np.arange(len(given_N)), wanted_N * len(categories) + given_N] = 1
    counts_CC = table_NK.sum(axis=0).reshape(len(categories), -1).astype(int)
    return Agreement(
        share=measure(mean_of((given_N == wanted_N).astype(np.float64), "share"), clusters),
        kappa=measure(Summed(table_NK, cohens_kappa, np.ones(len(given_N))), clusters),
        confusion={
            wanted: dict(zip(categories, row.tolist(), strict=True))
            for wanted, row in zip(categories, counts_CC, strict=True)
        },
    )


def cohens_kappa(sums: Array) -> Array:
    """Agreement beyond chance (Cohen 1960), of a flattened table of counts; 1 where both always say the
    same one thing."""
    side = round(sums.shape[-1] ** 0.5)
    table = sums.reshape(*sums.shape[:-1], side, side)
    count = sums.sum(axis=-1)
    same = np.trace(table, axis1=-2, axis2=-1) / count
    chance = (table.sum(axis=-1) * table.sum(axis=-2)).sum(axis=-1) / count**2
    return np.where(chance < 1, (same - chance) / np.where(chance < 1, 1 - chance, 1), 1.0)
