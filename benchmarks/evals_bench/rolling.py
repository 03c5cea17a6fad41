"""Whole texts, in windows one context apart."""

from typing import Any

from evals_bench.sides import compare

BAR = 1.2


def run(quick: bool) -> dict[str, Any]:
    """Seconds of both, and how far their log-likelihoods are apart."""
    return {"bar": BAR, **compare("rolling", quick)}
