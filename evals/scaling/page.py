"""A page of one fit: what was fitted and how, the points with the law, and how far it can be believed."""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from evals.report.page import document
from evals.report.tables import NONE, table
from evals.scaling.figures import (
    frontier_chart,
    isoflop_charts,
    loss_chart,
    profile_charts,
    residual_chart,
    size_chart,
)
from evals.scaling.forecast import check_budgets
from evals.scaling.ledger import read
from evals.scaling.ledger import table as outcomes
from evals.scaling.report import fit_record
from evals.scaling.study import Recipe, Study, study
from seedbed.files import write_atomic
from seedbed.progress import human_count


def write_page(
    points: Path, out: Path, recipe: Recipe, budgets: Sequence[float] = (), ledger: Path | None = None
) -> Path:
    """Write the page of the runs in `points` to `out`. Errors: see `study.study` and `ledger.read`."""
    check_budgets(budgets)
    done = study(points, recipe)
    book = outcomes(read(ledger)) if ledger else None
    write_atomic(out, render(points.name, done, fit_record(done, budgets), book))
    return out


@np.errstate(all="ignore")
def render(name: str, done: Study, record: dict[str, Any], book: dict[str, Any] | None = None) -> str:
    """The page as HTML."""
    sections = [
        f'<header><div class="title"><h1>Scaling law of {escape(name)}</h1></div>'
        f'<p class="lead">{escape(done.recipe_sentence())}</p></header>',
        _caveats(record),
        "<h2>Parameters</h2>" + _parameters(record),
        "<h2>Best use of a budget</h2>" + _optima(record),
        _charts("The law", [loss_chart(done), frontier_chart(done), size_chart(done), residual_chart(done)]),
        _charts("Budgets, each with its parabola", isoflop_charts(done)),
        _charts("How far each parameter can be moved", profile_charts(record)),
        "<h2>What moves the fit</h2>" + _moves(record),
        _book(book),
    ]
    return document(f"Scaling law of {name}", sections, f"from {name}")


def _charts(title: str, charts: Sequence[str]) -> str:
    drawn = "".join(charts)
    return f'<h2>{escape(title)}</h2><div class="charts">{drawn}</div>' if drawn else ""


def _caveats(record: dict[str, Any]) -> str:
    told = [*record["warnings"], *(f"left out, {one}" for one in record["left_out"])]
    if not told:
        return "<h2>Doubts</h2><p>None that these points raise.</p>"
    return f"<h2>Doubts</h2><ul>{''.join(f'<li>{escape(one)}</li>' for one in told)}</ul>"


def _parameters(record: dict[str, Any]) -> str:
    profiled = {one["name"]: one["interval"] for one in record["identifiability"]["profiles"]}
    rows = [
        [
            name,
            f"{record[name]:.5g}",
            _ends(record["intervals"].get(name)),
            _ends(profiled.get(name)),
        ]
        for name in ("E", "A", "alpha", "B", "beta")
    ]
    return table(["", "value", "95 % by bootstrap", "95 % by profile"], rows, numbers=(1, 2, 3))


def _optima(record: dict[str, Any]) -> str:
    rows = [
        [
            f"{one['compute']:.3g}",
            f"{human_count(one['parameters'])} {_ends(one['parameters_interval'], '.3g')}",
            human_count(one["tokens"]),
            f"{one['tokens_per_parameter']:.3g} {_ends(one['tokens_per_parameter_interval'], '.3g')}",
            f"{one['loss']:.4f} {_ends(one['loss_interval'], '.4f')}",
            _ends(one["run_interval"], ".4f"),
        ]
        for one in record["optima"]
    ]
    head = ["FLOP", "parameters", "tokens", "tokens per parameter", "loss", "loss of one run"]
    return table(head, rows, numbers=range(6))


def _moves(record: dict[str, Any]) -> str:
    doubts = record["identifiability"]
    told = (
        f"At {doubts['compute']:.3g} FLOP. Condition number {doubts['condition_number']:.3g}; "
        f"{doubts['agreeing']:.0%} of {doubts['starts']} starts agree."
    )
    choices = [
        *(("as fitted" if i == 0 else f"N is {one['count']}", one) for i, one in enumerate(doubts["counts"])),
        *((f"errors as {one['objective']}", one) for one in doubts["losses"]),
        *(
            (f"without {one['budget']:.3g} FLOP ({one['runs']} runs)", one)
            for one in doubts["without_budget"]
        ),
    ]
    rows = [
        [
            name,
            *(f"{one[key]:.4g}" for key in ("E", "alpha", "beta", "size_exponent")),
            *(
                (human_count(one["parameters"]), f"{one['tokens_per_parameter']:.3g}")
                if math.isfinite(one["parameters"])
                else (NONE, NONE)
            ),
        ]
        for name, one in choices
    ]
    head = ["", "E", "alpha", "beta", "a of N ~ C^a", "best size", "tokens per parameter"]
    strong = [
        [
            human_count(one["parameters"]),
            human_count(one["tokens"]),
            f"{one['loss']:.4f}",
            f"{one['predicted']:.4f}",
            f"{one['factor']:.3f}",
        ]
        for one in doubts["influential"]
    ]
    strong_head = ["parameters", "tokens", "loss", "predicted", "moves the best size by"]
    return (
        f"<p>{escape(told)}</p>{table(head, rows, numbers=range(1, 7))}"
        f"<h3>The five strongest points</h3>{table(strong_head, strong, numbers=range(5))}"
    )


def _book(book: dict[str, Any] | None) -> str:
    if book is None:
        return ""
    rows = [
        [
            f"{one['number']} {one['name']}".strip(),
            one["registered"],
            human_count(one["parameters"]),
            human_count(one["tokens"]),
            f"{one['predicted']:.4f} {_ends(one['interval'], '.4f')}",
            NONE if one["loss"] is None else f"{one['loss']:.4f}",
            {True: "within", False: "outside", None: NONE}[one["is_covered"]],
        ]
        for one in book["forecasts"]
    ]
    head = ["forecast", "registered", "parameters", "tokens", "loss of one run", "was", ""]
    told = f"{book['covered']} of {book['scored']} within their 95 % interval; last digest {book['head']}"
    return f"<h2>Forecasts</h2><p>{escape(told)}</p>{table(head, rows, numbers=(2, 3, 4, 5))}"


def _ends(pair: Sequence[float | None] | None, spec: str = ".4g") -> str:
    """[low, high]; a dash where there is no interval, a question mark where an end is open."""
    if pair is None:
        return NONE
    low, high = ("?" if end is None else format(end, spec) for end in pair)
    return f"[{low}, {high}]"
