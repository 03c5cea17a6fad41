"""`seedbed scale forecast`: all that is asked of one fit, and its registration."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evals.scaling.forecast import (
    check_budgets,
    forecast,
    forecast_constrained,
    forecast_run,
    forecast_serving,
)
from evals.scaling.ledger import register as register_one
from evals.scaling.repetition import Repetition
from evals.scaling.study import Recipe, Study, study
from seedbed.errors import UsageError


@dataclass(frozen=True)
class Asked:
    """What to forecast; a budget is that of the largest run unless given."""

    budgets: tuple[float, ...] = ()
    parameters: float | None = None
    tokens: float | None = None
    serve: float | None = None
    """Tokens that the model will serve."""
    unique: float | None = None
    """Tokens that there are to train on."""
    max_epochs: float | None = None


def forecasts(
    path: Path, recipe: Recipe, asked: Asked, *, register: Path | None = None, name: str = ""
) -> dict[str, Any]:
    """{"law", "recipe", "forecasts", "notes", "registered"}. Errors: see `study.study`, `ledger.read`."""
    _check(asked)
    done = study(path, recipe)
    found = _made(done, asked)
    value: dict[str, Any] = {
        "law": done.law_record(),
        "recipe": done.recipe_record(),
        "forecasts": found,
        "notes": _notes(done, found),
    }
    if register:
        law = {"law": value["law"], "recipe": value["recipe"]}
        rows = [register_one(register, one | law, name=name) for one in found]
        value["registered"] = [{key: row[key] for key in ("number", "time", "digest")} for row in rows]
    return value


def _made(done: Study, asked: Asked) -> list[dict[str, Any]]:
    found = []
    if asked.parameters is not None and asked.tokens is not None:
        found.append(forecast_run(done, asked.parameters, asked.tokens))
    budgets = asked.budgets or (() if found else (done.largest,))
    worth = done.repetition.repetition if done.repetition else Repetition()
    for compute in budgets:
        found.append(forecast(done, compute))
        if asked.serve is not None:
            found.append(forecast_serving(done, compute, asked.serve))
        if asked.unique is not None:
            most = np.inf if asked.max_epochs is None else asked.max_epochs
            found.append(forecast_constrained(done, compute, asked.unique, worth, most))
    return found


def _check(asked: Asked) -> None:
    check_budgets(asked.budgets)
    if (asked.parameters is None) != (asked.tokens is None):
        raise UsageError("--parameters and --tokens go together", "give both, or --compute")
    if asked.max_epochs is not None and asked.unique is None:
        raise UsageError("--max-epochs needs --unique", "say how many tokens there are")
    for flag, number in (("--serve", asked.serve), ("--unique", asked.unique)):
        if number is not None and not 0 < number < float("inf"):
            raise UsageError(f"{flag} {number:g} is no number of tokens", f"such as {flag} 1e12")


def _notes(done: Study, found: list[dict[str, Any]]) -> list[str]:
    """How far beyond the points a forecast reaches: intervals hold if the law's form does."""
    told = []
    for one in found:
        beyond = one["compute"] / done.largest
        if beyond > 10:
            told.append(
                f"{one['compute']:.3g} FLOP is {beyond:.3g} times the largest run: the intervals know "
                "nothing of a law that bends"
            )
    return sorted(set(told))
