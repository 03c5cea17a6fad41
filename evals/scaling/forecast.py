"""What a fitted law expects of a budget or of one run, with intervals, as JSON values.

`loss_interval` says where the law lies: it shrinks with more points. `run_interval` says where the loss of
one run will lie: it has the scatter of the runs in it, and is what a forecast is scored by.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from evals.scaling.laws import Law
from evals.scaling.optimum import FLOPS_PER_PARAMETER_AND_TOKEN, Optimum, compute_optimal, serving_optimal
from evals.scaling.repetition import Repetition, data_constrained_optimal, repeated_loss
from evals.scaling.study import Study
from seedbed.errors import UsageError

Best = Callable[[Law], Optimum]
SERVED = 100
"""Bootstraps that a search by grid is made for: each takes milliseconds."""


def check_budgets(budgets: Sequence[float]) -> None:
    """Raises UsageError for what is no number of FLOP."""
    if wrong := [budget for budget in budgets if not 0 < budget < float("inf")]:
        raise UsageError(f"--compute {wrong[0]:g} is no number of FLOP", "such as --compute 1e22")


def advice(law: Law, compute: float) -> dict[str, float]:
    """The compute-optimal use of `compute` FLOP: what `scale forecast` and `plan` both say."""
    best = compute_optimal(law, compute)
    return {
        "compute": compute,
        "parameters": best.parameters,
        "tokens": best.tokens,
        "tokens_per_parameter": best.tokens_per_parameter,
        "loss": best.loss,
    }


@np.errstate(all="ignore")
def forecast(done: Study, compute: float) -> dict[str, Any]:
    """The best size and tokens for `compute` FLOP, and their loss."""

    def best(law: Law) -> Optimum:
        return compute_optimal(law, compute)

    return {"kind": "compute-optimal", **advice(done.found.law, compute), **_intervals(done, best)}


@np.errstate(all="ignore")
def forecast_serving(done: Study, compute: float, served_tokens: float) -> dict[str, Any]:
    """The same loss for the least cost of training and serving together."""

    def best(law: Law) -> Optimum:
        return serving_optimal(law, compute, served_tokens)

    found = best(done.found.law)
    plain = compute_optimal(done.found.law, compute)
    per = FLOPS_PER_PARAMETER_AND_TOKEN
    return {
        "kind": "serving-optimal",
        "served_tokens": served_tokens,
        **_record(found, compute=per * found.parameters * found.tokens),
        "total_compute": found.compute,
        "total_compute_of_compute_optimal": compute + per / 3 * plain.parameters * served_tokens,
        **_intervals(done, best, SERVED),
    }


@np.errstate(all="ignore")
def forecast_constrained(
    done: Study, compute: float, unique: float, repetition: Repetition, most_epochs: float = np.inf
) -> dict[str, Any]:
    """The best use of `compute` FLOP when there are but `unique` tokens, to be repeated."""

    def best(law: Law) -> Optimum:
        return data_constrained_optimal(law, compute, unique, repetition, most_epochs=most_epochs)

    def loss(law: Law, chosen: Optimum) -> float:
        size, tokens, differing = (np.array(one) for one in (chosen.parameters, chosen.tokens, unique))
        return float(repeated_loss(law, size, tokens, differing, repetition))

    found = best(done.found.law)
    return {
        "kind": "data-constrained",
        "unique_tokens": unique,
        "epochs": found.tokens / unique,
        "repetition": {"data": repetition.data, "parameters": repetition.parameters},
        **_record(found),
        **_intervals(done, best, SERVED, loss),
    }


@np.errstate(all="ignore")
def forecast_run(done: Study, parameters: float, tokens: float) -> dict[str, Any]:
    """The loss of one run of `parameters` on `tokens`."""
    if not (0 < parameters < np.inf and 0 < tokens < np.inf):
        raise UsageError(
            f"a run of {parameters:g} parameters on {tokens:g} tokens is none",
            "such as --parameters 7e9 --tokens 1.4e11",
        )
    compute = FLOPS_PER_PARAMETER_AND_TOKEN * parameters * tokens

    def run(law: Law) -> Optimum:
        return Optimum(compute, parameters, tokens, float(law.loss(np.array([parameters, tokens]))))

    ends = _intervals(done, run)
    return {
        "kind": "given",
        **_record(run(done.found.law)),
        **{name: ends[name] for name in ("loss_interval", "run_interval")},
    }


def _record(found: Optimum, compute: float | None = None) -> dict[str, float]:
    return {
        "compute": found.compute if compute is None else compute,
        "parameters": found.parameters,
        "tokens": found.tokens,
        "tokens_per_parameter": found.tokens_per_parameter,
        "loss": found.loss,
    }


def _loss_of(law: Law, chosen: Optimum) -> float:
    return float(law.loss(np.array([chosen.parameters, chosen.tokens])))


def _intervals(
    done: Study,
    best: Best,
    most: int | None = None,
    loss: Callable[[Law, Optimum], float] = _loss_of,
) -> dict[str, list[float | None]]:
    """95 % intervals of the sizes, and of the loss that the chosen sizes will have.

    The loss is that of the sizes which the law of all points chooses, under each resample's law.
    """
    laws = [Law(done.drawn.names, theta) for theta in done.drawn.thetas]
    with np.errstate(all="ignore"):
        others = [best(law) for law in laws[:most]]
        chosen = best(done.found.law)
        losses = np.array([loss(law, chosen) for law in laws])
    residuals = done.residuals()
    runs = np.exp(np.log(losses)[:, None] + residuals).ravel()
    return {
        "parameters_interval": _ends([one.parameters for one in others]),
        "tokens_interval": _ends([one.tokens for one in others]),
        "tokens_per_parameter_interval": _ends([one.tokens_per_parameter for one in others]),
        "loss_interval": _ends(losses),
        "run_interval": _ends(runs),
    }


def _ends(values: Sequence[float] | np.ndarray) -> list[float | None]:
    """2.5 % and 97.5 %; none where too many resamples have no such number."""
    array = np.asarray(values, dtype=np.float64)
    lowest = np.sort(np.where(np.isfinite(array), array, -np.inf))
    highest = np.sort(np.where(np.isfinite(array), array, np.inf))
    low, high = (
        lowest[int(0.025 * len(array))],
        highest[min(len(array) - 1, int(np.ceil(0.975 * len(array))))],
    )
    return [float(low) if np.isfinite(low) else None, float(high) if np.isfinite(high) else None]
