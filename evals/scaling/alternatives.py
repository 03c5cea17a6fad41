"""The same runs by other laws and other approaches, as JSON values: where they differ, believe none of them.

What a set of runs does not allow says why, in the place of its numbers.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from evals.scaling.approaches import Allocation, by_envelope, by_isoflops
from evals.scaling.fit import Fit
from evals.scaling.forms import fit_kaplan, fit_over_training
from evals.scaling.intervals import Bootstrap
from evals.scaling.laws import Points
from evals.scaling.optimum import size_exponent
from seedbed.errors import DataError


def alternatives(points: Points, found: Fit, drawn: Bootstrap) -> dict[str, Any]:
    """{"size_exponent": a of N ~ C^a by approaches 1, 2 and 3, "kaplan", "over_training"}."""
    return {
        "size_exponent": {
            "envelope": _tried(lambda: _allocation(by_envelope(points))),
            "parabolas": _tried(lambda: _allocation(by_isoflops(points))),
            "law": {"value": size_exponent(found.law), "interval": list(drawn.interval(size_exponent))},
        },
        "kaplan": _tried(lambda: _kaplan(points, found)),
        "over_training": _tried(lambda: _over_training(points, found)),
    }


def _tried(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return work()
    except DataError as error:
        return {"reason": error.message}


def _allocation(found: Allocation) -> dict[str, Any]:
    ends = [end if np.isfinite(end) else None for end in found.interval]
    return {"value": found.size.exponent, "interval": ends}


def _kaplan(points: Points, found: Fit) -> dict[str, Any]:
    law = fit_kaplan(points, found.objective, found.delta)
    return {
        "N_c": law.n_c,
        "alpha_N": law.alpha_n,
        "D_c": law.d_c,
        "alpha_D": law.alpha_d,
        "objective": law.value,
        "agreeing": law.agreeing,
    }


def _over_training(points: Points, found: Fit) -> dict[str, Any]:
    law = fit_over_training(points, found.objective, found.delta)
    return {"E": law.asymptote, "a": law.a, "b": law.b, "eta": law.eta}
