"""What a metric is: what it needs of each item, the number that follows, and which way is better."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evals.intervals import Clusters, Measured, Scale, Statistic, mean_of, measure
from seedbed.errors import DataError

Item = Mapping[str, Any]


@dataclass(frozen=True)
class Metric:
    """One number of a set of items."""

    name: str
    needs: tuple[str, ...]
    """Keys of an item."""
    of: Callable[[Sequence[Item]], Statistic]
    greater_is_better: bool = True
    smooth: str | None = None
    """The metric beside it that has no threshold."""
    unit: str = ""

    def statistic(self, items: Sequence[Item]) -> Statistic:
        """DataError when an item lacks what is needed."""
        for number, item in enumerate(items):
            if missing := [key for key in self.needs if item.get(key) is None]:
                name = item.get("item", f"number {number}")
                raise DataError(
                    f"{self.name} needs {', '.join(missing)} of every item, which item {name} does not have",
                    "score the items again, or leave the metric out",
                )
        return self.of(items)

    def measure(self, items: Sequence[Item], clusters: Clusters) -> Measured:
        """The value with its interval."""
        return measure(self.statistic(items), clusters)


def mean_metric(
    name: str,
    needs: tuple[str, ...],
    score: Callable[[Item], float],
    *,
    scale: Scale = "share",
    greater_is_better: bool = True,
    smooth: str | None = None,
    unit: str = "",
) -> Metric:
    """The mean of a score of each item."""

    def of(items: Sequence[Item]) -> Statistic:
        return mean_of([score(item) for item in items], scale)

    return Metric(name, needs, of, greater_is_better, smooth, unit)
