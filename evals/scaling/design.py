"""What to train for a scaling law: cells of size and tokens, and what they will cost, before any is run.

For every budget a row of sizes about the one that the present law calls best (IsoFLOP, Hoffmann et al. 2022,
approach 2), or every size at every number of tokens. Cells of one size share a trunk: it is trained at a
constant rate, and where a cell's tokens call for it a branch leaves it whose rate falls to the end (warm-up,
stable, decay: Hu et al. 2024, arXiv:2404.06395; Haegele et al. 2024, arXiv:2405.18392). So each further
number of tokens costs its decay alone.

A trunk is trained leg by leg, each a branch of the one before it, to the step of the next cell's branch
(`seedbed scale run`). A cell that diverges ends early: `guards.max_loss` is part of its settings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from evals.scaling.ladder import Dial, Make, Rung, assignments
from evals.scaling.laws import Law, log_loss
from evals.scaling.optimum import compute_optimal
from seedbed.errors import UsageError
from training.layout_search import Machines
from training.plan import make_plan

DIVERGED = 1.25
"""Times the loss of a model that knows nothing, ln(vocabulary): a run above it will come to nothing."""
BESIROGLU = Law(
    ("N", "D"), np.array([np.log(1.817235), np.log(477.8417), 0.347313, np.log(2143.8638), 0.367183])
)
"""Besiroglu et al. 2024 (arXiv:2404.10102): where grids are centred until there are runs of one's own."""


@dataclass(frozen=True)
class Grid:
    """What is asked for."""

    budgets: tuple[float, ...] = ()
    """FLOP of each row, as `seedbed plan` counts them."""
    num_sizes: int = 5
    span: float = 4.0
    """Of sizes, to either side of the best."""
    warmup_share: float = 0.02
    """Of the shortest cell of a trunk."""
    decay_share: float = 0.2
    """Of each cell."""
    tokens: tuple[float, ...] = ()
    """Instead of budgets: numbers of tokens, for each of"""
    parameters: tuple[float, ...] = ()
    """these sizes, or the rungs next to them."""


@dataclass(frozen=True)
class Cell:
    """A size, with tokens that spend a budget."""

    budget: float
    rung: Rung

    @property
    def tokens(self) -> float:
        return self.budget / self.rung.flops_per_token


def check(grid: Grid) -> None:
    """Raises UsageError for what makes no grid."""
    given = grid.budgets or grid.tokens
    if not given or (grid.budgets and grid.tokens) or bool(grid.tokens) != bool(grid.parameters):
        raise UsageError(
            "a design needs budgets, or tokens and sizes",
            "such as --budget 1e15 --budget 1e16, or --tokens 1e8 --tokens 1e9 --size 1e6 --size 1e7",
        )
    if wrong := [one for one in (*given, *grid.parameters) if not 0 < one < float("inf")]:
        raise UsageError(f"{wrong[0]:g} is no budget, size or number of tokens", "give them above 0")
    if grid.num_sizes < 3 or grid.span <= 1:
        raise UsageError(
            f"{grid.num_sizes} sizes within a factor of {grid.span:g} show no lowest point",
            "take --sizes 5 --span 4",
        )
    if not 0 < grid.decay_share < 1 or not 0 <= grid.warmup_share < 1 - grid.decay_share:
        raise UsageError("--warmup and --decay must leave a stable stretch", "such as 0.02 and 0.2")


def cells_of(dial: Dial, law: Law, grid: Grid) -> list[Cell]:
    """What a grid consists of."""
    if grid.budgets:
        return isoflops(dial, law, grid)
    rungs = dial.nearest(grid.parameters)
    if len(rungs) < len(grid.parameters):
        raise UsageError(
            f"{len(grid.parameters)} sizes are but {len(rungs)} of the ladder's (widths go by {dial.step})",
            "take sizes further apart, or a recipe of smaller heads",
        )
    return [
        Cell(tokens * rung.flops_per_token, rung) for rung in rungs for tokens in sorted(set(grid.tokens))
    ]


def isoflops(dial: Dial, law: Law, grid: Grid) -> list[Cell]:
    """For each budget the rungs about its best size. Rungs are a factor apart, from one common beginning, so
    that budgets share them."""
    ratio = grid.span ** (2 / (grid.num_sizes - 1))
    cells = []
    origin = compute_optimal(law, min(grid.budgets)).parameters
    for budget in sorted(set(grid.budgets)):
        centre = round(np.log(compute_optimal(law, budget).parameters / origin) / np.log(ratio))
        places = centre + np.arange(grid.num_sizes) - (grid.num_sizes - 1) // 2
        cells += [Cell(budget, rung) for rung in dial.nearest([origin * ratio**place for place in places])]
    return cells


def design(
    dial: Dial, make: Make, cells: Sequence[Cell], grid: Grid, law: Law, pricing: "Pricing"
) -> dict[str, Any]:
    """Trunks with their branches, and the cost of all. Raises ConfigError for what cannot be trained."""
    trunks = []
    for size in sorted({cell.rung.parameters for cell in cells}):
        own = sorted((cell for cell in cells if cell.rung.parameters == size), key=lambda cell: cell.budget)
        trunks.append(_trunk(dial, make, own, grid, law, pricing))
    return {
        "budgets": sorted(set(grid.budgets)),
        "tokens": sorted(set(grid.tokens)),
        "count": dial.count,
        "is_mup": dial.is_mup,
        "warmup_share": grid.warmup_share,
        "decay_share": grid.decay_share,
        "trunks": trunks,
        "cost": _total(trunks),
    }


@dataclass(frozen=True)
class Pricing:
    """On what a design will run; without machines only FLOPs are known."""

    machines: Machines | None = None
    per_device_hour: float | None = None

    def of(self, config: Any) -> dict[str, float | None]:
        """Hours and price of a step, by the arithmetic of `seedbed plan`."""
        plan = make_plan(
            config, Path("runs"), machines=self.machines, price_per_device_hour=self.per_device_hour
        )
        if not self.machines:
            return {"hours": None, "device_hours": None, "price": None}
        return {name: _per_step(plan[name], plan["steps"]) for name in ("hours", "device_hours", "price")}


def _per_step(value: float | None, steps: int) -> float | None:
    return None if value is None else value / steps


def _trunk(
    dial: Dial, make: Make, cells: Sequence[Cell], grid: Grid, law: Law, pricing: Pricing
) -> dict[str, Any]:
    rung = cells[0].rung
    per_step = dial.batch_tokens(float(np.exp(np.mean([np.log(cell.tokens) for cell in cells]))))
    steps = [max(2, round(cell.tokens / per_step)) for cell in cells]
    if len(set(steps)) < len(steps):
        raise UsageError(
            f"cells of {rung.parameters:.3g} parameters differ by less than a step of {per_step:,} tokens",
            "take budgets, or tokens, further apart, or a recipe of smaller batches",
        )
    warmup = max(1, round(grid.warmup_share * steps[0]))
    leaves = [max(warmup, min(n - 1, round((1 - grid.decay_share) * n))) for n in steps]
    shared = rung.settings | {"batch.tokens_per_step": per_step}
    name = f"n{rung.parameters}"
    longest = make(assignments(shared | {"run.steps": steps[-1]}))
    knows_nothing = float(f"{DIVERGED * np.log(longest.model.vocab_size):.4g}")
    shared["guards.max_loss"] = longest.guards.max_loss or knows_nothing
    step_cost = pricing.of(longest)
    rows = [
        _cell(name, cell, n, leave, warmup, per_step, law, step_cost)
        for cell, n, leave in zip(cells, steps, leaves, strict=True)
    ]
    for row in rows:
        # Proves that the settings make a run.
        make(assignments(shared | row["settings"]))
    trained = leaves[-1] + sum(n - leave for n, leave in zip(steps, leaves, strict=True))
    return {
        "name": name,
        "parameters": rung.parameters,
        "flops_per_token": rung.flops_per_token,
        "tokens_per_step": per_step,
        "warmup_steps": warmup,
        "settings": shared,
        "legs": [{"to_step": leave, "settings": _stable(leave, warmup)} for leave in sorted(set(leaves))],
        "cells": rows,
        "cost": _cost(trained, per_step, rung, step_cost)
        | {"flops_one_by_one": sum(row["flops"] for row in rows)},
    }


def _cell(
    name: str,
    cell: Cell,
    steps: int,
    leave: int,
    warmup: int,
    per_step: int,
    law: Law,
    step_cost: dict[str, float | None],
) -> dict[str, Any]:
    tokens = steps * per_step
    size = cell.rung.parameters
    return {
        "name": f"{name}-c{cell.budget:.3g}",
        "budget": cell.budget,
        "parameters": size,
        "tokens": tokens,
        "tokens_per_parameter": tokens / size,
        "flops": cell.rung.flops_per_token * tokens,
        "steps": steps,
        "branch_at": leave,
        "predicted_loss": float(law.loss(np.array([size, tokens], dtype=np.float64))),
        "settings": {
            "run.steps": steps,
            "schedule.name": "wsd",
            "schedule.warmup_share": (warmup - 0.5) / steps,
            "schedule.decay_share": (steps - leave) / steps,
        },
        "cost": _cost(steps - leave, per_step, cell.rung, step_cost),
    }


def _stable(steps: int, warmup: int) -> dict[str, Any]:
    """Settings of a leg: the rate stays where the warm-up left it. Half a step less is rounded up to it."""
    return {
        "run.steps": steps,
        "schedule.name": "constant",
        "schedule.warmup_share": (warmup - 0.5) / steps,
    }


def _cost(
    steps: int, per_step: int, rung: Rung, step_cost: dict[str, float | None]
) -> dict[str, float | None]:
    each = {name: None if value is None else value * steps for name, value in step_cost.items()}
    return {"flops": rung.flops_per_token * steps * per_step, **each}


def _total(trunks: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    total: dict[str, float | None] = {}
    for name in trunks[0]["cost"]:
        values = [trunk["cost"][name] for trunk in trunks]
        total[name] = None if None in values else sum(values)
    return total


def widest(
    thetas: np.ndarray, noise: float, taken: Sequence[Cell], candidates: Sequence[Cell], num: int
) -> list[tuple[Cell, float]]:
    """(`num` of `candidates`, deviation of its ln L) where the law is known the least, one after the other.

    The resampled laws `thetas` [B, P] say how the losses of all cells vary together; each run that will be
    made, with noise of that deviation in ln L, narrows the others as in linear regression, before the next is
    chosen (greedily D-optimal: Fedorov 1972).
    """
    cells = [*taken, *candidates]
    places = np.log(np.array([(cell.rung.parameters, cell.tokens) for cell in cells]))
    losses, _ = log_loss(thetas, places)
    covariance = np.cov(losses, rowvar=False)
    found = []
    left = set(range(len(taken), len(cells)))
    for number in range(len(taken) + min(num, len(candidates))):
        place = number
        if number >= len(taken):
            place = max(left, key=lambda i: covariance[i, i])
            left.remove(place)
            found.append((cells[place], float(np.sqrt(covariance[place, place]))))
        column = covariance[:, place]
        covariance = covariance - np.outer(column, column) / (column[place] + noise**2)
    return found


def neighbours(dial: Dial, law: Law, grid: Grid, taken: Sequence[Cell]) -> list[Cell]:
    """Cells of the same budgets, and one between each two, over twice the span, that are not taken yet."""
    budgets = sorted(set(grid.budgets))
    between = [float(np.sqrt(low * high)) for low, high in pairwise(budgets)]
    wider = Grid(
        (*budgets, *between), 2 * grid.num_sizes - 1, grid.span**2, grid.warmup_share, grid.decay_share
    )
    known = {(cell.budget, cell.rung.parameters) for cell in taken}
    return [cell for cell in isoflops(dial, law, wider) if (cell.budget, cell.rung.parameters) not in known]
