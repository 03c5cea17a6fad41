"""Curves made ready to draw: gaps where a value is missing, fewer points without losing a spike."""

from collections.abc import Sequence

import numpy as np

MAX_BINS = 360


def finite_runs(x: np.ndarray, y: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The stretches of a curve between its missing (NaN or infinite) values."""
    good = np.flatnonzero(np.isfinite(y) & np.isfinite(x))
    if not len(good):
        return []
    breaks = np.flatnonzero(np.diff(good) > 1) + 1
    return [(x[part], y[part]) for part in np.split(good, breaks)]


def thin(x: np.ndarray, y: np.ndarray, max_bins: int = MAX_BINS) -> tuple[np.ndarray, np.ndarray]:
    """At most two points per bin, its lowest and its highest in their order, so that no spike is lost."""
    if len(x) <= 2 * max_bins:
        return x, y
    keep: list[int] = []
    for part in np.array_split(np.arange(len(x)), max_bins):
        keep += sorted({int(part[np.argmin(y[part])]), int(part[np.argmax(y[part])])})
    # The ends carry the values that are written beside the curve.
    index = np.unique([0, *keep, len(x) - 1])
    return x[index], y[index]


def smoothing_window(num_points: int) -> int:
    """How many points a smoothed curve averages: a fortieth of the curve, odd, at most 501; 1 is none."""
    return min(501, num_points // 40 | 1) if num_points >= 80 else 1


def moving_mean(y: np.ndarray, window: int) -> np.ndarray:
    """The mean over `window` points centred on each, fewer at the ends; missing values are left out."""
    good = np.isfinite(y)
    sums = np.concatenate([[0.0], np.cumsum(np.where(good, y, 0.0))])
    counts = np.concatenate([[0], np.cumsum(good)])
    place = np.arange(len(y))
    start, end = np.maximum(0, place - window // 2), np.minimum(len(y), place + window // 2 + 1)
    num = counts[end] - counts[start]
    with np.errstate(invalid="ignore"):
        return np.where((num > 0) & good, (sums[end] - sums[start]) / num, np.nan)


def column(rows: Sequence[dict], key: str) -> np.ndarray:
    """The values of one key, NaN where a row has none or no number."""
    return np.array([_number(row.get(key)) for row in rows], dtype=np.float64)


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else float("nan")
