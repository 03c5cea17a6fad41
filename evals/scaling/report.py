"""A fit to the runs of a file, with all that is to be said of it, as JSON values."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evals.scaling.alternatives import alternatives
from evals.scaling.caveats import repetition_warnings, warnings
from evals.scaling.forecast import check_budgets, forecast
from evals.scaling.identifiability import intervals, report
from evals.scaling.study import Recipe, Study, study


def fitted(path: Path, recipe: Recipe | None = None, budgets: Sequence[float] = ()) -> dict[str, Any]:
    """{"E", "A", "B", "alpha", "beta", "objective", "intervals", "optima", "warnings", "left_out", ...}.

    `budgets` in FLOP, that of the largest run without. Errors: see `study.study`.
    """
    check_budgets(budgets)
    return fit_record(study(path, recipe), budgets)


@np.errstate(all="ignore")
def fit_record(done: Study, budgets: Sequence[float] = ()) -> dict[str, Any]:
    """What `fitted` gives, of a fit that is made already."""
    points, found = done.points, done.found
    ends = intervals(done.drawn)
    if found.has_given_asymptote:
        del ends["E"]
    doubts = report(points, found, done.largest, done.table.counts)
    return {
        **done.law_record(),
        "objective": found.value,
        "objective_name": done.recipe.objective,
        "points": len(points),
        "starts": found.num_starts,
        "agreeing": found.agreeing,
        "bootstraps": done.recipe.bootstraps,
        "seed": done.recipe.seed,
        "intervals": {
            name: [end if math.isfinite(end) else None for end in pair] for name, pair in ends.items()
        },
        "optima": [forecast(done, budget) for budget in budgets or [done.largest]],
        "columns": done.table.columns,
        "left_out": done.table.left_out,
        "warnings": [*warnings(points, found, ends, doubts), *repetition_warnings(done.repetition)],
        "identifiability": doubts,
        "repetition": done.repetition.record() if done.repetition else None,
        "alternatives": alternatives(points, found, done.drawn),
        "recipe": done.recipe_record(),
    }
