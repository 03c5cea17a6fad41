"""What perturbations cost, and what texts of unseen sources do.

The worst case is by item, as in HELM (Liang et al. 2022): each item counts with the worst of its clean and
its changed scores. It is what a user meets who does not choose the wording; the mean over perturbations is
what the average user meets. Every change is compared with the clean text item by item.

Shapes: V variants of N items, K sums.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evals.comparison import Comparison, compare_tasks, paired
from evals.intervals import Array, Halves, Measured, Over, Summed, measure
from evals.metrics.registry import metric
from evals.task_results import ItemScores
from seedbed.errors import DataError, UsageError


@dataclass(frozen=True)
class Robustness:
    """One metric under several changes of the items."""

    metric: str
    clean: Measured
    mean: Measured
    """Over the perturbations, the clean text not among them."""
    worst: Measured
    by_perturbation: dict[str, Comparison]
    """Each with the clean text as `before`; p-values are Holm's."""

    def as_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            **{name: getattr(self, name).as_json() for name in ("clean", "mean", "worst")},
            "by_perturbation": {name: one.as_json() for name, one in self.by_perturbation.items()},
        }


def robustness(
    clean: ItemScores, perturbed: Mapping[str, ItemScores], name: str, over: Over | None = None
) -> Robustness:
    """The metric `name`; `perturbed` holds the scores of the same items, by perturbation.

    A changed item keeps its name and the digest of what it was made of. UsageError for a metric that has no
    value of one item, DataError without perturbations or for other items.
    """
    if not perturbed:
        raise DataError("no perturbation was scored", "score the changed items too")
    one = metric(name)
    variants = [clean, *(paired(clean, other)[1] for other in perturbed.values())]
    statistic = one.statistic([row for variant in variants for row in variant.rows])
    if not isinstance(statistic, Summed):
        raise UsageError(f"{name} has no value of a single item", "take a metric that is a mean or a ratio")
    table_VNK = statistic.table_NK.reshape(len(variants), len(clean), -1)
    weights_VN = statistic.weights_N.reshape(len(variants), len(clean))
    with np.errstate(divide="ignore", invalid="ignore"):
        values_VN = statistic.finish(table_VNK)
    sign = 1 if one.greater_is_better else -1
    # Of an item that has no value by itself, such as one without words, the clean text stands.
    worst_N = np.where(np.isnan(values_VN), np.inf, sign * values_VN).argmin(axis=0)
    items_N = np.arange(len(clean))

    def of(table_NK: Array, weights_N: Array) -> Measured:
        own = replace(statistic, table_NK=table_NK, weights_N=weights_N)
        return measure(own, clean.clusters(over))

    return Robustness(
        metric=name,
        clean=of(table_VNK[0], weights_VN[0]),
        mean=of(table_VNK[1:].mean(axis=0), weights_VN[1:].mean(axis=0)),
        worst=of(table_VNK[worst_N, items_N], weights_VN[worst_N, items_N]),
        by_perturbation=compare_tasks(
            {change: (clean, other, name) for change, other in perturbed.items()}, over
        ),
    )


def by_distribution(
    found: ItemScores, trained_on: Collection[str], name: str, over: Over | None = None
) -> dict[str, Measured | float]:
    """Items of sources that training has seen beside those of others.

    {"inside", "outside", "difference" (outside minus inside), "share_outside"}. DataError when all are on one
    side.
    """
    one = metric(name)
    is_outside_N = np.array([str(row["source"]) not in trained_on for row in found.rows])
    if is_outside_N.all() or not is_outside_N.any():
        side = "none" if is_outside_N.all() else "every one"
        raise DataError(
            f"of {len(found):,} items, {side} is of a source that training has seen",
            "give items of both, and the names of the sources as the items have them",
        )
    halves = found.only(~is_outside_N), found.only(is_outside_N)
    inside, outside = (one.statistic(half.rows) for half in halves)
    difference = Halves(inside, outside, is_outside_N)
    return {
        "inside": measure(inside, halves[0].clusters(over)),
        "outside": measure(outside, halves[1].clusters(over)),
        "difference": measure(difference, found.clusters(over)),
        "share_outside": float(is_outside_N.mean()),
    }
