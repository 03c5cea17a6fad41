"""Figures of several rounds in one line of JSON."""

import statistics
from collections.abc import Sequence
from typing import Any


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, least and greatest, and the values themselves, to four digits."""
    return {
        "median": _rounded(statistics.median(values)),
        "min": _rounded(min(values)),
        "max": _rounded(max(values)),
        "values": [_rounded(value) for value in values],
    }


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
