"""Whether confidence is probability: the bins of a reliability diagram, and how far off they are on average.

DeGroot and Fienberg 1983, "The comparison and evaluation of forecasters"; for the expected calibration error,
Guo et al. 2017, "On calibration of modern neural networks". Bins are of equal width.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

NUM_BINS = 10


class Bin(NamedTuple):
    """Means over what is in one bin."""

    confidence: float
    accuracy: float
    items: int


def bins_of(confidence_N: Array, *, lowest: float = 0.0, num_bins: int = NUM_BINS) -> NDArray[np.int64]:
    """[N] the bin of each confidence in lowest..1; each has its lower end, the last one both."""
    places_N = (confidence_N - lowest) / (1 - lowest) * num_bins
    return np.clip(places_N.astype(np.int64), 0, num_bins - 1)


def reliability(
    confidence_N: Array, right_N: Array, *, lowest: float = 0.0, num_bins: int = NUM_BINS
) -> list[Bin]:
    """The bins that hold something, from the least sure on."""
    bins_N = bins_of(confidence_N, lowest=lowest, num_bins=num_bins)
    chosen = [bins_N == number for number in np.unique(bins_N)]
    return [
        Bin(float(confidence_N[here].mean()), float(right_N[here].mean()), int(here.sum())) for here in chosen
    ]


def expected_calibration_error(
    confidence_N: Array, right_N: Array, *, lowest: float = 0.0, num_bins: int = NUM_BINS
) -> float:
    """Mean distance of accuracy from confidence over the bins; nan of nothing."""
    if not len(confidence_N):
        return float("nan")
    rows = reliability(confidence_N, right_N, lowest=lowest, num_bins=num_bins)
    return sum(abs(row.accuracy - row.confidence) * row.items for row in rows) / len(confidence_N)
