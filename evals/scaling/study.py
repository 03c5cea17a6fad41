"""One fit with all that made it: the points, the recipe, the law and its bootstraps.

Half of the fits in the literature cannot be made again, for want of the recipe (Li et al. 2025,
arXiv:2502.18969): here it goes wherever the numbers go.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np

from evals.scaling.fit import AGREEMENT, DELTA, Fit, Objective, fit
from evals.scaling.intervals import Bootstrap, bootstrap
from evals.scaling.laws import Array, Points
from evals.scaling.optimum import FLOPS_PER_PARAMETER_AND_TOKEN
from evals.scaling.repetition import FRESH, Repeated, Worth, worth_of_repetition
from evals.scaling.tables import Table, read_points, without_highest
from seedbed.errors import UsageError
from seedbed.files import digest_of

WORDS = {
    "huber": f"Huber's loss (delta {DELTA:g}) of differences of log loss",
    "squared_log": "squared differences of log loss",
    "squared": "squared differences of loss",
}


@dataclass(frozen=True)
class Recipe:
    """What to do with a table of runs."""

    objective: str = "huber"
    drop_highest: int = 0
    """Highest losses that are left out."""
    bootstraps: int = 1000
    seed: int = 0
    asymptote: float | None = None
    """E, when it is not to be fitted."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """N, D, C or loss -> column, where the usual names do not say."""
    counts: tuple[str, ...] = ()
    """Columns that count parameters otherwise than N."""


@dataclass(frozen=True)
class Study:
    """A recipe and what came of it."""

    recipe: Recipe
    table: Table
    found: Fit
    drawn: Bootstrap
    repetition: Worth | None = None
    """Of repeated data, where some runs repeat theirs; the law is of the others."""

    @property
    def points(self) -> Points:
        return self.table.points

    @property
    def largest(self) -> float:
        """FLOP of the largest run, at 6 N D."""
        return float(FLOPS_PER_PARAMETER_AND_TOKEN * self.points.quantities.prod(axis=1).max())

    def residuals(self) -> Array:
        """[n] ln(loss / predicted), widened for the parameters that were fitted to them."""
        n, fitted = len(self.points), int((~self.found.held).sum())
        raw = np.log(self.points.losses / self.found.law.loss(self.points.quantities))
        widened: Array = raw * np.sqrt(n / max(1, n - fitted))
        return widened

    def law_record(self) -> dict[str, float]:
        """The law's numbers by their names."""
        (a, b), (alpha, beta) = self.found.law.amplitudes, self.found.law.exponents
        return {
            "E": self.found.law.asymptote,
            "A": float(a),
            "B": float(b),
            "alpha": float(alpha),
            "beta": float(beta),
        }

    def recipe_record(self) -> dict[str, Any]:
        """All that another needs to make this fit again from the same table."""
        rows = np.column_stack([self.points.quantities, self.points.losses])
        return {
            "objective": self.recipe.objective,
            "delta": self.found.delta if self.recipe.objective == "huber" else None,
            "reduction": "sum",
            "asymptote": self.recipe.asymptote,
            "dropped_highest": self.recipe.drop_highest,
            "optimizer": "BFGS with weak Wolfe steps, analytic gradients",
            "starts": self.found.num_starts,
            "bootstraps": self.recipe.bootstraps,
            "seed": self.recipe.seed,
            "points": len(self.points),
            "points_digest": digest_of([[float(value) for value in row] for row in rows]),
            "columns": dict(self.table.columns),
        }

    def recipe_sentence(self) -> str:
        """The same, for a reader."""
        recipe, num_starts = self.recipe, self.found.num_starts
        tokens = "" if "D" in self.table.columns else " D is C / (6 N)."
        dropped = f" The {recipe.drop_highest} highest losses are left out." if recipe.drop_highest else ""
        again = "" if self.repetition is None else " Runs that repeat their data are not among the points."
        given = "" if recipe.asymptote is None else f" E is held at {recipe.asymptote:g}."
        return (
            f"L = E + A / N^alpha + B / D^beta, by the sum over {len(self.points)} points of "
            f"{WORDS[recipe.objective]}; BFGS with analytic gradients from {num_starts} starts, of which "
            f"{self.found.agreeing:.0%} end within {AGREEMENT:g} of the least objective, "
            f"{self.found.value:.9g}. Intervals: 95 %, percentiles of {recipe.bootstraps:,} resamples of the "
            f"points (seed {recipe.seed}), each fitted again from two starts.{tokens}{dropped}{given}{again}"
        )


@np.errstate(all="ignore")
def study(path: Path, recipe: Recipe | None = None) -> Study:
    """The fit of the runs of a file. Errors: see `tables.read_points` and `fit.fit`."""
    recipe = recipe or Recipe()
    if recipe.objective not in get_args(Objective):
        known = ", ".join(get_args(Objective))
        raise UsageError(f"--objective {recipe.objective} is unknown", f"one of {known}")
    if recipe.asymptote is not None and not 0 < recipe.asymptote < float("inf"):
        raise UsageError(f"--asymptote {recipe.asymptote:g} is no loss", "such as --asymptote 1.7")
    table = read_points(path, recipe.columns, recipe.counts)
    if recipe.drop_highest:
        table = without_highest(table, recipe.drop_highest)
    repeated = _repeated(table)
    if repeated:
        assert table.unique is not None
        fresh = np.flatnonzero(table.points.quantities[:, 1] <= FRESH * table.unique)
        table = table.take([int(number) for number in fresh], {})
    found = fit(table.points, objective=recipe.objective, asymptote=recipe.asymptote)  # type: ignore[arg-type]
    drawn = bootstrap(table.points, found, recipe.bootstraps, seed=recipe.seed)
    worth = worth_of_repetition(found, repeated, seed=recipe.seed) if repeated else None
    return Study(recipe, table, found, drawn, worth)


def _repeated(table: Table) -> Repeated | None:
    """The runs that repeat their data; none, when there is no such run."""
    if table.unique is None:
        return None
    (sizes, tokens), losses = table.points.quantities.T, table.points.losses
    again = tokens > FRESH * table.unique
    if not again.any():
        return None
    return Repeated(sizes[again], tokens[again], table.unique[again], losses[again])
