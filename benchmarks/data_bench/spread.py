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


def interval_95(values: Sequence[float]) -> list[float]:
    """A bootstrap interval of the median."""
    import numpy as np

    drawn = np.random.default_rng(0).choice(values, (2000, len(values)))
    return [round(float(end), 4) for end in np.percentile(np.median(drawn, axis=1), (2.5, 97.5))]


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
