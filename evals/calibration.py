"""Calibration of anything that has a confidence, with intervals: the diagram's bins, and the error over them.

The bins and the error are those of `seedbed.calibration`, which reward models share.
"""

from typing import Any

import numpy as np

from evals.intervals import Array, Clusters, Statistic, Summed, mean_of, measure
from seedbed.calibration import NUM_BINS as ECE_BINS
from seedbed.calibration import bins_of


def expected_error_statistic(confidence_N: Array, right_N: Array, *, num_bins: int = ECE_BINS) -> Statistic:
    """The expected calibration error as a statistic of sums: over bins, of what confidence exceeds accuracy
    by."""
    table_NK = np.zeros((len(confidence_N), num_bins + 1))
    table_NK[np.arange(len(confidence_N)), bins_of(confidence_N, num_bins=num_bins)] = confidence_N - right_N
    table_NK[:, -1] = 1
    return Summed(table_NK, _expected_error, np.ones(len(confidence_N)))


def _expected_error(sums: Array) -> Array:
    return np.abs(sums[..., :-1]).sum(axis=-1) / sums[..., -1]


def reliability_rows(
    confidence_N: Array, right_N: Array, clusters: Clusters, *, num_bins: int = ECE_BINS
) -> list[dict[str, Any]]:
    """The bins of a reliability diagram as JSON: confidence, accuracy with its interval, count."""
    bins_N = bins_of(confidence_N, num_bins=num_bins)
    rows = []
    for number in np.unique(bins_N):
        here = bins_N == number
        _, index_N = np.unique(clusters.index_N[here], return_inverse=True)
        own = Clusters(index_N, int(index_N.max()) + 1, clusters.over)
        found = measure(mean_of(right_N[here], "share"), own).as_json()
        rows.append(
            {
                "confidence": float(confidence_N[here].mean()),
                "accuracy": found["value"],
                "low": found["low"],
                "high": found["high"],
                "count": int(here.sum()),
            }
        )
    return rows
