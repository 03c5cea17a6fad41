"""Labels and ratings: how often right, F1 over classes, and correlations.

Shapes: N items, L labels, K sums.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evals.intervals import Array, Clusters, Scale, Statistic, Summed
from evals.metrics.base import Item, Metric, mean_metric

LABELS = ("predicted", "gold")


def _numbers(items: Sequence[Item]) -> tuple[Any, Any, int]:
    """Predicted and right labels as numbers, and how many labels there are in either."""
    labels = sorted({str(item[key]) for item in items for key in LABELS})
    number = {label: index for index, label in enumerate(labels)}
    predicted, gold = (np.array([number[str(item[key])] for item in items]) for key in LABELS)
    return predicted, gold, len(labels)


def _macro_f1(items: Sequence[Item]) -> Statistic:
    predicted_N, gold_N, num_labels = _numbers(items)
    one_hot_LL = np.eye(num_labels)
    given_NL, wanted_NL = one_hot_LL[predicted_N], one_hot_LL[gold_N]
    table_NK = np.concatenate([given_NL * wanted_NL, given_NL + wanted_NL], axis=1)
    return Summed(table_NK, macro_f1, np.ones(len(items)), "log-odds")


def macro_f1(sums: Array) -> Array:
    """The mean over labels of F1, of sums of (both say it) and of (one says it) + (the other does); a label
    that nobody says is left out."""
    num_labels = sums.shape[-1] // 2
    both, either = sums[..., :num_labels], sums[..., num_labels:]
    there = either > 0
    return np.where(there, 2 * both / np.where(there, either, 1), 0).sum(axis=-1) / there.sum(axis=-1)


def _matthews(items: Sequence[Item]) -> Statistic:
    predicted_N, gold_N, num_labels = _numbers(items)
    one_hot_LL = np.eye(num_labels)
    right_N = (predicted_N == gold_N).astype(np.float64)
    table_NK = np.column_stack([right_N, one_hot_LL[predicted_N], one_hot_LL[gold_N]])
    return Summed(table_NK, matthews, np.ones(len(items)), "correlation")


def matthews(sums: Array) -> Array:
    """Matthews' correlation for any number of labels (Gorodkin 2004), of sums of hits, of each label
    predicted and of each label right; 0 where one side says a single label."""
    num_labels = (sums.shape[-1] - 1) // 2
    hits, given, wanted = sums[..., 0], sums[..., 1 : num_labels + 1], sums[..., num_labels + 1 :]
    count = given.sum(axis=-1)
    above = hits * count - (given * wanted).sum(axis=-1)
    spread = (count**2 - (given**2).sum(axis=-1)) * (count**2 - (wanted**2).sum(axis=-1))
    return np.where(spread > 0, above / np.sqrt(np.where(spread > 0, spread, 1)), 0.0)


def _ratings(items: Sequence[Item]) -> tuple[Array, Array]:
    x_N, y_N = (np.array([item[key] for item in items], dtype=np.float64) for key in LABELS)
    return x_N, y_N


def _pearson(items: Sequence[Item]) -> Statistic:
    x_N, y_N = _ratings(items)
    # Sums of squares lose what is small beside a large mean.
    x_N, y_N = x_N - x_N.mean(), y_N - y_N.mean()
    table_NK = np.column_stack([np.ones(len(x_N)), x_N, y_N, x_N * x_N, y_N * y_N, x_N * y_N])
    return Summed(table_NK, _pearson_of, np.ones(len(x_N)), "correlation")


def _pearson_of(sums: Array) -> Array:
    count, x, y, xx, yy, xy = (sums[..., number] for number in range(6))
    spread = (xx - x * x / count) * (yy - y * y / count)
    return np.where(spread > 0, (xy - x * y / count) / np.sqrt(np.where(spread > 0, spread, 1)), 0.0)


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's: Pearson's of ranks, where equal values share the mean of theirs."""

    x_N: Array
    y_N: Array
    scale: Scale = "correlation"

    @property
    def leverages_N(self) -> Array:
        return np.full(len(self.x_N), 1 / len(self.x_N))

    def value(self) -> float:
        return spearman(self.x_N, self.y_N)

    def left_out(self, clusters: Clusters) -> Array:
        return np.array([self._without(clusters.index_N == number) for number in range(clusters.num)])

    def _without(self, gone_N: Any) -> float:
        return spearman(self.x_N[~gone_N], self.y_N[~gone_N])


def spearman(x_N: Array, y_N: Array) -> float:
    """0 where all values of one side are equal."""
    x_N, y_N = ranks(x_N) - (len(x_N) + 1) / 2, ranks(y_N) - (len(y_N) + 1) / 2
    spread = float(np.sqrt((x_N @ x_N) * (y_N @ y_N)))
    return float(x_N @ y_N) / spread if spread else 0.0


def ranks(x_N: Array) -> Array:
    """From 1; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(x_N, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


LABEL_METRICS = [
    mean_metric(
        "label_accuracy",
        LABELS,
        lambda item: float(str(item["predicted"]) == str(item["gold"])),
        smooth="label_probability",
        unit="share right",
    ),
    Metric("macro_f1", LABELS, _macro_f1, smooth="label_probability", unit="mean F1 of the labels"),
    Metric("matthews", LABELS, _matthews, smooth="label_probability", unit="correlation"),
    Metric("pearson", LABELS, _pearson, unit="correlation"),
    Metric("spearman", LABELS, lambda items: RankCorrelation(*_ratings(items)), unit="rank correlation"),
]
