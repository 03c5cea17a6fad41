"""Is one checkpoint better than another? Asked of the same items, pair by pair.

Most of what makes scores vary is which items happen to be there, and that is the same for both: the
difference of each pair has far less of it, so a paired comparison finds what two intervals that overlap hide.
Where an item is hard for one checkpoint it mostly is for the other; only where it is not does the verdict
come from.

The interval is that of `evals.intervals` for the difference, over clusters. Several tasks compared at once
are several chances to be wrong: Holm's p-values (1979, "A simple sequentially rejective multiple test
procedure") keep the chance of any false verdict at 5 %.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from evals.intervals import Clusters, Difference, Measured, Over, Statistic, clusters_of, measure
from evals.metrics.registry import metric
from evals.task_results import ItemScores, named, scores_of
from seedbed.errors import DataError
from seedbed.statistics import t_quantile, t_tail

Verdict = Literal["better", "worse", "tied"]

ALPHA = 0.05
POWER = 0.8


@dataclass(frozen=True)
class Comparison:
    """One metric before and after, on the same items."""

    metric: str
    before: Measured
    after: Measured
    difference: Measured
    """After minus before, in the metric's own unit: below zero is better where less is."""
    p: float
    """How often chance alone would make a difference at least as large."""
    verdict: Verdict
    """Of `after`. Tied: these items do not tell, which is not to say that the two are equal."""
    items_needed: int | None
    """Items, in clusters like these, that would show a difference of this size 8 times in 10; None for no
    difference at all, and where one cluster gives no interval."""
    detectable: float
    """The difference that the items there are would show 8 times in 10."""
    design_effect: float
    """How many times larger the variance is than that of so many independent items."""
    num_comparisons: int = 1
    """How many were made at once, for which `p` is Holm's."""

    def as_json(self) -> dict[str, Any]:
        """All fields; what is not finite becomes None."""
        values = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }
        parts = ("before", "after", "difference")
        return values | {name: getattr(self, name).as_json() for name in parts}


def paired(before: ItemScores, after: ItemScores) -> tuple[ItemScores, ItemScores]:
    """Both in the order of the first; DataError says in what the items differ."""
    names, others = before.names, after.names
    if lacking := sorted(set(names) - set(others)):
        raise DataError(
            f"{len(lacking):,} of {len(names):,} items were scored for the first alone: {named(lacking)}",
            "evaluate both on the same items",
        )
    if more := sorted(set(others) - set(names)):
        raise DataError(
            f"{len(more):,} of {len(others):,} items were scored for the second alone: {named(more)}",
            "evaluate both on the same items",
        )
    row_of = {str(row["item"]): row for row in after.rows}
    same_order = ItemScores([row_of[name] for name in names], after.digest)
    if before.digest != after.digest:
        changed = _changed(before, same_order)
        which = f", such as {named(changed)}" if changed else ""
        raise DataError(
            f"items of the same names have other contents{which}: "
            f"digest {before.digest[:12]} before, {after.digest[:12]} after",
            "evaluate both on the same version of the task",
        )
    return before, same_order


def _changed(before: ItemScores, after: ItemScores) -> list[str]:
    """Items whose own digests, clusters or sources differ."""
    keys = ("digest", "cluster", "source")
    pairs = zip(before.rows, after.rows, strict=True)
    return [str(a["item"]) for a, b in pairs if any(a.get(key) != b.get(key) for key in keys)]


def compare(before: ItemScores, after: ItemScores, name: str, over: Over | None = None) -> Comparison:
    """The metric `name` of both, and the verdict on `after`. DataError when the items are not the same."""
    before, after = paired(before, after)
    one, clusters = metric(name), before.clusters(over)
    first, second = one.statistic(before.rows), one.statistic(after.rows)
    statistic = Difference(first, second)
    difference = _bounded(measure(statistic, clusters))
    p = _p_value(difference)
    return Comparison(
        metric=name,
        before=measure(first, clusters),
        after=measure(second, clusters),
        difference=difference,
        p=p,
        verdict=_verdict(difference.value, p, one.greater_is_better),
        items_needed=items_needed(difference, abs(difference.value)),
        detectable=_reach(difference.freedom) * difference.standard_error if difference.freedom else math.inf,
        design_effect=_design_effect(statistic, difference, clusters),
    )


def _bounded(difference: Measured) -> Measured:
    """Differences that are all the same have no variance; of a few clusters that proves little."""
    is_sure = difference.standard_error > 0 or not difference.value or _sign_test(difference) <= ALPHA
    return difference if is_sure else replace(difference, low=-math.inf, high=math.inf)


def _sign_test(difference: Measured) -> float:
    """How often clusters that lean either way would all lean the same."""
    return 2.0 ** (1 - difference.clusters)


def _p_value(difference: Measured) -> float:
    if not difference.value or not difference.freedom:
        return 1.0
    if not difference.standard_error:
        return _sign_test(difference)
    return t_tail(difference.value / difference.standard_error, difference.freedom)


def _verdict(difference: float, p: float, greater_is_better: bool) -> Verdict:
    if p > ALPHA:
        return "tied"
    return "better" if (difference > 0) == greater_is_better else "worse"


def _reach(freedom: float) -> float:
    """Standard errors that a difference must have to be found with `POWER`."""
    return t_quantile(1 - ALPHA / 2, freedom) + t_quantile(POWER, freedom)


def items_needed(difference: Measured, size: float) -> int | None:
    """Items, in clusters as these are, that would show a difference of `size` with `POWER`."""
    if not size or not math.isfinite(difference.standard_error) or not difference.freedom:
        return None
    per_item = difference.standard_error / size
    times = 0.0
    # More clusters are more degrees of freedom, which ask for fewer clusters: this settles at once.
    freedom = math.inf
    for _ in range(5):
        times = (_reach(freedom) * per_item) ** 2
        freedom = max(1.0, times * difference.freedom)
    least = 2 * difference.items / difference.clusters
    return math.ceil(max(times * difference.items, least))


def _design_effect(statistic: Statistic, difference: Measured, clusters: Clusters) -> float:
    """Of the difference: pairs cancel much of what clusters have in common."""
    if len(clusters.index_N) < 2 or not difference.freedom:
        return math.nan
    alone = measure(statistic, clusters_of(range(len(clusters.index_N))))
    return (difference.standard_error / alone.standard_error) ** 2 if alone.standard_error else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: those at most 5 % may all be believed at once."""
    order = sorted(range(len(p_values)), key=lambda number: p_values[number])
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, number in enumerate(order):
        least = max(least, min(1.0, p_values[number] * (len(p_values) - rank)))
        adjusted[number] = least
    return adjusted


def compare_tasks(
    tasks: Mapping[str, tuple[ItemScores, ItemScores, str]], over: Over | None = None
) -> dict[str, Comparison]:
    """By task, of (before, after, metric): verdicts by Holm's p-values. Intervals are each task's own."""
    found = {task: compare(before, after, name, over) for task, (before, after, name) in tasks.items()}
    adjusted = holm([one.p for one in found.values()])
    return {
        task: replace(
            one,
            p=p,
            verdict=_verdict(one.difference.value, p, metric(one.metric).greater_is_better),
            num_comparisons=len(found),
        )
        for (task, one), p in zip(found.items(), adjusted, strict=True)
    }


def compare_results(before: Path, after: Path, name: str = "") -> Comparison:
    """Of two result files of one task, by the metric `name`; by their primary one without."""
    (first, primary), (second, _) = scores_of(before), scores_of(after)
    return compare(first, second, name or primary)


def described(one: Comparison) -> str:
    """The verdict in two lines."""
    between = one.difference
    ends = f"[{between.low:+.4f}, {between.high:+.4f}]" if math.isfinite(between.low) else "no interval"
    several = f", Holm's of {one.num_comparisons}" if one.num_comparisons > 1 else ""
    needed = (
        f"; {one.items_needed:,} such items would settle it"
        if one.verdict == "tied" and one.items_needed
        else ""
    )
    return (
        f"{one.verdict}: {one.metric} {one.before.value:.4f} -> {one.after.value:.4f}, "
        f"{between.value:+.4f} {ends}, p = {one.p:.3g}{several}\n"
        f"  {between.items:,} items in {between.clusters:,} {between.over}{needed}"
    )
