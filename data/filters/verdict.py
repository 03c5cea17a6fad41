"""What a filter says of a document that it refuses, and how thresholds are compared."""

from collections.abc import Iterable
from typing import Any, NamedTuple


class Rejected(NamedTuple):
    """Why a document is dropped."""

    reason: str
    """FILTER.THRESHOLD, such as "gopher_quality.min_words": what drops are counted by."""
    detail: str
    """What was measured, and the threshold: for a person."""


class Measure(NamedTuple):
    """A number that a threshold bounds."""

    threshold: str
    """The field that bounds it: from below if its name starts with "min_", from above with "max_"."""
    value: float
    what: str


def first_beyond(filter_name: str, thresholds: Any, measures: Iterable[Measure]) -> Rejected | None:
    """The rejection for the first of `measures` beyond its threshold; those after it are not asked for."""
    for threshold, value, what in measures:
        limit = getattr(thresholds, threshold)
        if threshold.startswith("min_") and value < limit:
            return Rejected(f"{filter_name}.{threshold}", f"{what} {value:.4g}, at least {limit:g}")
        if threshold.startswith("max_") and value > limit:
            return Rejected(f"{filter_name}.{threshold}", f"{what} {value:.4g}, at most {limit:g}")
    return None
