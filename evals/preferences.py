"""How well a reward model agrees with raters on held-out comparisons.

accuracy        the share of pairs in the raters' order, with a 95 % interval (over prompts, where these have
                several pairs), beside that of preferring the longer answer, or the shorter one, whichever is
                right more often on the training split: the least that a reward has to beat
calibration     the expected calibration error of sigmoid(difference), before and after dividing by a
temperature
                that is fitted by likelihood on one half of the prompts; both are measured on the other half
by margin       accuracy in five bins of the difference, from pairs that the model is least sure of
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.examples.table import ExampleTable
from data.shards import Dataset
from evals.intervals import clusters_of, mean_of, measure
from seedbed.errors import DataError
from seedbed.statistics import Estimate, share_interval
from training.rewards.calibration import (
    expected_calibration_error,
    fitted_temperature,
    is_at_an_end,
    reliability,
)
from training.rewards.scoring import RewardScorer

NUM_MARGIN_BINS = 5
MIN_PAIRS_TO_FIT = 10


@dataclass(frozen=True)
class Pairs:
    """N comparisons: the sequences that were compared, the better one first, and which example each is of."""

    better: NDArray[np.int64]
    worse: NDArray[np.int64]
    examples: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.better)


def pairs_of(table: ExampleTable) -> Pairs:
    """Every pair of candidates of an example that have different ranks."""
    found = []
    for number, (first, stop) in enumerate(zip(table.firsts[:-1], table.firsts[1:], strict=True)):
        members = range(int(first), int(stop))
        found += [(i, j, number) for i in members for j in members if table.ranks[i] < table.ranks[j]]
    columns = np.array(found, dtype=np.int64).reshape(-1, 3).T
    return Pairs(*columns)


def preference_scores(scorer: RewardScorer, dataset: Dataset, split: str = "holdout") -> dict[str, Any]:
    """All of the above as JSON values; DataError when the split has no comparison."""
    table = ExampleTable.of(dataset, split)
    pairs = pairs_of(table)
    if not len(pairs):
        raise DataError(
            f"the {split} split of {dataset.location} has no comparison",
            "build it with data.format = preference or ranking, and data.holdout_fraction above 0",
        )
    sequences = [table.tokens(number) for number in range(table.num_sequences)]
    rewards = scorer.score(sequences)
    differences = rewards[pairs.better] - rewards[pairs.worse]
    return {
        **_accuracy(differences, pairs).__dict__,
        "unit": "share of pairs in the raters' order",
        "pairs": len(pairs),
        "examples": table.num_examples,
        "length_baseline": _length_baseline(dataset, split),
        "calibration": calibration(differences, pairs.examples),
        "by_margin": by_margin(differences),
        "reward": {"mean": float(rewards.mean()), "deviation": float(rewards.std())},
        "items": dataset.digest,
        "data": {"path": dataset.location.root, "split": split},
    }


def _accuracy(differences: NDArray[np.float64], pairs: Pairs) -> Estimate:
    right = (differences > 0) + 0.5 * (differences == 0)
    found = measure(mean_of(right, "share"), clusters_of(pairs.examples.tolist()))
    return Estimate(found.value, found.low, found.high)


def calibration(differences: NDArray[np.float64], examples: NDArray[np.int64]) -> dict[str, Any]:
    """ECE and reliability before and after, and the temperature; None with too few pairs in a half."""
    fits = examples % 2 == 0
    if min(fits.sum(), (~fits).sum()) < MIN_PAIRS_TO_FIT:
        return {
            "temperature": None,
            "ece": expected_calibration_error(differences),
            "ece_after": None,
            "reliability": _bins(differences),
            "reliability_after": [],
        }
    temperature = fitted_temperature(differences[fits])
    return {
        "temperature": temperature,
        "ece": expected_calibration_error(differences[~fits]),
        "ece_after": expected_calibration_error(differences[~fits], temperature),
        "reliability": _bins(differences[~fits]),
        "reliability_after": _bins(differences[~fits], temperature),
    }


def _bins(differences: NDArray[np.float64], temperature: float = 1.0) -> list[dict[str, float]]:
    return [row._asdict() for row in reliability(differences, temperature)]


def by_margin(differences: NDArray[np.float64]) -> list[dict[str, float]]:
    """Accuracy where the model is less and where it is more sure, in bins of equally many pairs."""
    order = np.argsort(np.abs(differences), kind="stable")
    rows = []
    for part in np.array_split(order, min(NUM_MARGIN_BINS, len(order))):
        own = differences[part]
        right = float(((own > 0) + 0.5 * (own == 0)).sum())
        row = share_interval(right, len(own)).__dict__
        margins = np.abs(own)
        rows.append({"from": float(margins.min()), "to": float(margins.max()), "pairs": len(own), **row})
    return rows


def _length_baseline(dataset: Dataset, split: str) -> dict[str, Any]:
    """Accuracy of going by length alone, in the direction that is right on the training split."""
    trained = _length_differences(ExampleTable.of(dataset, "train"))
    sign = 1 if np.sign(trained).sum() >= 0 else -1
    table = ExampleTable.of(dataset, split)
    found = _accuracy(sign * _length_differences(table), pairs_of(table))
    return {"prefers": "longer" if sign > 0 else "shorter", **found.__dict__}


def _length_differences(table: ExampleTable) -> NDArray[np.float64]:
    pairs = pairs_of(table)
    return (table.lengths[pairs.better] - table.lengths[pairs.worse]).astype(np.float64)


def described(result: dict[str, Any]) -> str:
    """The result in a few lines."""
    length, fit = result["length_baseline"], result["calibration"]
    lines = [
        f"accuracy {_shown(result)} on {result['pairs']:,} pairs",
        f"  the {length['prefers']} answer: {_shown(length)}",
        f"  calibration error {fit['ece']:.3f}"
        + (
            ""
            if fit["temperature"] is None
            else f", {fit['ece_after']:.3f} at tau = {fit['temperature']:.3g}"
            + (
                " (no temperature fits: most pairs are in one order)"
                if is_at_an_end(fit["temperature"])
                else ""
            )
        ),
    ]
    lines += [
        f"  |difference| {row['from']:.3g} to {row['to']:.3g}: {row['value']:.1%} of {row['pairs']}"
        for row in result["by_margin"]
    ]
    return "\n".join(lines)


def _shown(estimate: dict[str, float]) -> str:
    if not math.isfinite(estimate["low"]):
        return f"{estimate['value']:.1%}"
    return f"{estimate['value']:.1%} [{estimate['low']:.1%}, {estimate['high']:.1%}]"


def score_with(checkpoints: Sequence[Path], dataset: Path, how: str = "mean") -> dict[str, Any]:
    """`preference_scores` of one reward model or an ensemble on the held-out split of a dataset."""
    return preference_scores(RewardScorer(checkpoints, how=how), Dataset.open(dataset))
