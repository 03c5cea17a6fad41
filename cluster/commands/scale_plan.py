"""`seedbed scale plan`: what to train for a scaling law, and what it will cost."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.commands.options import Json, Sets
from cluster.commands.plan import Nodes, On, Price
from cluster.output import command, emit
from seedbed.errors import UsageError

if TYPE_CHECKING:
    from training.config import Config
    from training.layout_search import Machines

COUNTS = ("total", "active", "non_embedding")


@command
def plan(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe or a .toml file: the ladder's base.")],
    budget: Annotated[
        list[float] | None,
        typer.Option(help="FLOP of one row of sizes, as `seedbed plan` counts. Repeatable."),
    ] = None,
    sizes: Annotated[int, typer.Option(min=3, help="For each budget.")] = 5,
    span: Annotated[float, typer.Option(help="Factor between the best size and the outermost.")] = 4.0,
    law: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV", help="Runs made so far: rows are centred on their law, not on Chinchilla's."
        ),
    ] = None,
    extra: Annotated[
        int, typer.Option(min=0, help="With --law: further cells, where its loss is known the least.")
    ] = 0,
    count: Annotated[str, typer.Option(help=f"What N counts: {', '.join(COUNTS)}.")] = "total",
    mup: Annotated[
        bool, typer.Option("--mup", help="Keep the recipe's learning rate at every width.")
    ] = False,
    decay: Annotated[float, typer.Option(help="Share of a run in which its rate falls.")] = 0.2,
    warmup: Annotated[float, typer.Option(help="Share of the shortest run in which it rises.")] = 0.02,
    on: On = None,
    nodes: Nodes = None,
    price: Price = None,
    out: Annotated[Path | None, typer.Option(help="Write the design here, as JSON.")] = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """A ladder of models by one dial, rows of equal compute about the best size, and the cost of all first.

    Models of one size share a trunk, from which a branch leaves for every number of tokens.
    """
    from cluster.render_scale import design_text
    from evals.scaling.design import Grid, check
    from seedbed.files import write_json

    if count not in COUNTS:
        raise UsageError(f"--count {count} is unknown", f"one of {', '.join(COUNTS)}")
    if extra and not law:
        raise UsageError("--extra needs --law", "give the runs whose law is to be narrowed")
    if nodes is not None and on is None:
        raise UsageError("--nodes counts machines of the devices that --on names", "add --on 8xH100")
    grid = Grid(tuple(budget or ()), sizes, span, warmup, decay)
    check(grid)
    value = _designed(recipe, sets or [], grid, law, extra, count, mup, on, nodes, price)
    if out:
        write_json(out, value)
    emit(value, json=json, render=design_text)


def _designed(
    recipe: str,
    sets: list[str],
    grid: Any,
    runs: Path | None,
    extra: int,
    count: str,
    is_mup: bool,
    on: str | None,
    nodes: int | None,
    price: float | None,
) -> dict[str, Any]:
    from evals.scaling.design import BESIROGLU, Pricing, design, isoflops, neighbours, widest
    from evals.scaling.ladder import Dial
    from evals.scaling.study import study

    def make(more: Sequence[str]) -> "Config":
        return _config(recipe, [*sets, *more], on, nodes)[0]

    machines = _config(recipe, sets, on, nodes)[1]
    dial = Dial(_config(recipe, sets, None, None)[0], count, is_mup)
    done = study(runs) if runs else None
    law = done.found.law if done else BESIROGLU
    cells = isoflops(dial, law, grid)
    added: list[dict[str, Any]] = []
    if done and extra:
        noise = float(done.residuals().std())
        more = widest(done.drawn.thetas, noise, cells, neighbours(dial, law, grid, cells), extra)
        cells = [*cells, *(cell for cell, _ in more)]
        added = [
            {"budget": cell.budget, "parameters": cell.rung.parameters, "deviation_of_log_loss": deviation}
            for cell, deviation in more
        ]
    value = design(dial, make, cells, grid, law, Pricing(machines, price))
    source = str(runs) if runs else "Besiroglu et al. 2024, arXiv:2404.10102"
    return {"recipe": recipe, "sets": sets, "centred_on": source, **value, "added": added}


def _config(
    recipe: str, sets: list[str], on: str | None, nodes: int | None
) -> "tuple[Config, Machines | None]":
    """With its devices, where --on names some."""
    from cluster.commands.plan import placed
    from training.prepare import sized
    from training.recipes import load_config

    if on is None:
        return sized(load_config(recipe, sets)), None
    return placed(recipe, sets, on, nodes)
