"""A fit to the runs of a file, with all that is to be said of it, as JSON values."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from evals.scaling.fit import Objective, fit
from evals.scaling.identifiability import intervals, warnings
from evals.scaling.intervals import Bootstrap, bootstrap
from evals.scaling.laws import Law
from evals.scaling.optimum import FLOPS_PER_PARAMETER_AND_TOKEN, compute_optimal
from evals.scaling.tables import read_points, without_highest
from seedbed.errors import UsageError


def fitted(
    path: Path,
    *,
    columns: Mapping[str, str] | None = None,
    budgets: Sequence[float] = (),
    objective: str = "huber",
    drop_highest: int = 0,
    bootstraps: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """{"E", "A", "B", "alpha", "beta", "objective", "intervals", "optima", "warnings", "left_out", ...}.

    `budgets` in FLOP, that of the largest run without. Errors: see `tables.read_points` and `fit.fit`.
    """
    if objective not in get_args(Objective):
        raise UsageError(f"--objective {objective} is unknown", f"one of {', '.join(get_args(Objective))}")
    if wrong := [budget for budget in budgets if not 0 < budget < float("inf")]:
        raise UsageError(f"--compute {wrong[0]:g} is no number of FLOP", "such as --compute 1e22")
    table = read_points(path, columns)
    if drop_highest:
        table = without_highest(table, drop_highest)
    points = table.points
    found = fit(points, objective=objective)  # type: ignore[arg-type]
    drawn = bootstrap(points, found, bootstraps, seed=seed)
    largest = float(FLOPS_PER_PARAMETER_AND_TOKEN * points.quantities.prod(axis=1).max())
    ends = intervals(drawn)
    (a, b), (alpha, beta) = found.law.amplitudes, found.law.exponents
    return {
        "E": found.law.asymptote,
        "A": float(a),
        "B": float(b),
        "alpha": float(alpha),
        "beta": float(beta),
        "objective": found.value,
        "objective_name": objective,
        "points": len(points),
        "starts": found.num_starts,
        "agreeing": found.agreeing,
        "bootstraps": bootstraps,
        "seed": seed,
        "intervals": {name: list(pair) for name, pair in ends.items()},
        "optima": [_optimum(found.law, drawn, budget) for budget in budgets or [largest]],
        "columns": table.columns,
        "left_out": table.left_out,
        "warnings": warnings(points, found, ends, largest),
    }


def _optimum(law: Law, drawn: Bootstrap, compute: float) -> dict[str, Any]:
    best = compute_optimal(law, compute)
    return {
        "compute": compute,
        "parameters": best.parameters,
        "tokens": best.tokens,
        "tokens_per_parameter": best.tokens_per_parameter,
        "loss": best.loss,
        "parameters_interval": list(drawn.interval(lambda one: compute_optimal(one, compute).parameters)),
        "tokens_per_parameter_interval": list(
            drawn.interval(lambda one: compute_optimal(one, compute).tokens_per_parameter)
        ),
        "loss_interval": list(drawn.interval(lambda one: compute_optimal(one, compute).loss)),
    }
