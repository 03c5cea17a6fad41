"""Four choices for a long context each."""

from typing import Any

from evals_bench.sides import compare

BAR = 3.0


def run(quick: bool) -> dict[str, Any]:
    """Seconds of both, and how far their log-likelihoods are apart."""
    return {"bar": BAR, **compare("choices", quick)}
