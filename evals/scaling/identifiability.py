"""How far a fit can be trusted, as numbers: what moves it, and how far.

A fit always gives five numbers. Whether they mean anything shows in how wide their intervals are, and in
how far the best use of a budget moves when one point or one budget is left out, when errors are weighed
otherwise, and when parameters are counted otherwise. caveats.py makes sentences of it.
"""

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np

from evals.scaling.approaches import budgets_of, compute_of
from evals.scaling.fit import Fit, Objective, fit, refit
from evals.scaling.intervals import Bootstrap
from evals.scaling.laws import Array, Law, Points, jacobian
from evals.scaling.optimum import compute_optimal, size_exponent
from evals.scaling.profiles import Profile, profiles

STRONGEST = 5
"""Points whose influence is told."""
LEFT = 2
"""Points that a fit without a budget must have for each parameter."""


def intervals(drawn: Bootstrap) -> dict[str, tuple[float, float]]:
    """95 % intervals of E, of the A and B, and of the exponents, by bootstrap."""
    return {
        "E": drawn.interval(lambda law: law.asymptote),
        "A": drawn.interval(lambda law: law.amplitudes[0]),
        "B": drawn.interval(lambda law: law.amplitudes[1]),
        "alpha": drawn.interval(lambda law: law.exponents[0]),
        "beta": drawn.interval(lambda law: law.exponents[1]),
    }


def condition_number(points: Points, found: Fit) -> float:
    """Of the derivatives of log loss by the parameters, each scaled to length 1 (Belsley 1980)."""
    columns = jacobian(found.law.theta, np.log(points.quantities))[:, ~found.held]
    values = np.linalg.svd(columns / np.linalg.norm(columns, axis=0), compute_uv=False)
    return float(values[0] / values[-1])


def influence(points: Points, found: Fit, compute: float) -> Array:
    """[n] by which factor the best size for `compute` FLOP moves when a point is left out."""
    weights = 1 - np.eye(len(points))
    start = np.tile(found.law.theta, (len(points), 1))
    ends = refit(points, found, start, weights=weights)
    whole = compute_optimal(found.law, compute).parameters
    sizes = [compute_optimal(Law(found.law.names, theta), compute).parameters for theta in ends.points]
    return np.maximum(np.array(sizes) / whole, whole / np.array(sizes))


def report(
    points: Points, found: Fit, compute: float, counts: Mapping[str, Array] | None = None
) -> dict[str, Any]:
    """All of it as JSON values; `counts` are other ways to count each point's parameters, by name."""
    return {
        "compute": compute,
        "condition_number": condition_number(points, found),
        "starts": found.num_starts,
        "agreeing": found.agreeing,
        "profiles": [profile_record(one) for one in profiles(points, found)],
        "influential": strongest(points, found, compute),
        "without_budget": without_budgets(points, found, compute),
        "losses": by_objective(points, found, compute),
        "counts": by_count(points, found, compute, counts or {}),
    }


def profile_record(profile: Profile) -> dict[str, Any]:
    """As JSON values: an end that is open is none."""
    ends = [end if np.isfinite(end) else None for end in (profile.low, profile.high)]
    path = [[value, z] for value, z in profile.path if np.isfinite(value)]
    return {"name": profile.name, "interval": ends, "is_open": profile.is_open, "path": path}


def strongest(points: Points, found: Fit, compute: float) -> list[dict[str, Any]]:
    """The points without which the best size for `compute` FLOP would move the most."""
    moves = influence(points, found, compute)
    predicted = found.law.loss(points.quantities)
    return [
        {
            "parameters": float(points.quantities[i, 0]),
            "tokens": float(points.quantities[i, 1]),
            "loss": float(points.losses[i]),
            "predicted": float(predicted[i]),
            "factor": float(moves[i]),
        }
        for i in np.argsort(-moves, kind="stable")[:STRONGEST]
    ]


def without_budgets(points: Points, found: Fit, compute: float) -> list[dict[str, Any]]:
    """What the fit would be without each budget; those of a single run are for `strongest`."""
    spent = compute_of(points)
    groups = [
        group
        for group in budgets_of(spent)
        if len(group) > 1 and len(points) - len(group) >= LEFT * len(found.law.theta)
    ]
    if not groups:
        return []
    weights = np.ones((len(groups), len(points)))
    for row, group in zip(weights, groups, strict=True):
        row[group] = 0.0
    starts = np.tile(found.law.theta, (len(groups), 1))
    ends = refit(points, found, starts, weights=weights).points
    return [
        {
            "budget": float(np.exp(np.log(spent[group]).mean())),
            "runs": len(group),
            **_summary(Law(found.law.names, theta), compute),
        }
        for group, theta in zip(groups, ends, strict=True)
    ]


def by_objective(points: Points, found: Fit, compute: float) -> list[dict[str, Any]]:
    """What the fit would be if errors were weighed otherwise."""
    return [
        {
            "objective": name,
            **_summary(
                found.law if name == found.objective else _otherwise(points, found, objective=name).law,
                compute,
            ),
        }
        for name in get_args(Objective)
    ]


def by_count(points: Points, found: Fit, compute: float, counts: Mapping[str, Array]) -> list[dict[str, Any]]:
    """What the fit would be if N were counted otherwise: with embeddings or without (Porian et al. 2024,
    arXiv:2406.19146: this alone takes the exponent from 0.5 to 0.7)."""
    fits = [("N", found)]
    for name, sizes in counts.items():
        other = Points(np.stack([sizes, points.quantities[:, 1]], axis=1), points.losses)
        fits.append((name, _otherwise(other, found)))
    return [{"count": name, **_summary(one.law, compute)} for name, one in fits]


def _otherwise(points: Points, found: Fit, **changes: Any) -> Fit:
    """The recipe of `found`, but for `changes`, from many starts."""
    given = found.law.asymptote if found.has_given_asymptote else None
    return fit(points, **{"objective": found.objective, "delta": found.delta, "asymptote": given, **changes})


def _summary(law: Law, compute: float) -> dict[str, float]:
    best = compute_optimal(law, compute)
    (a, b), (alpha, beta) = law.amplitudes, law.exponents
    return {
        "E": law.asymptote,
        "A": float(a),
        "B": float(b),
        "alpha": float(alpha),
        "beta": float(beta),
        "size_exponent": size_exponent(law),
        "parameters": best.parameters,
        "tokens_per_parameter": best.tokens_per_parameter,
    }
