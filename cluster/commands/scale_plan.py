"""`seedbed scale plan`: what to train for a scaling law, and what it will cost."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.commands.options import Json, Sets
from cluster.commands.plan import Nodes, On, Price
from cluster.output import command, emit
from seedbed.errors import UsageError


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
    tokens: Annotated[
        list[float] | None,
        typer.Option(help="Instead of budgets: a number of tokens for every --size. Repeatable."),
    ] = None,
    size: Annotated[
        list[float] | None,
        typer.Option(help="With --tokens: parameters; the ladder's model next to it. Repeatable."),
    ] = None,
    count: Annotated[str, typer.Option(help="What N counts: total, active or non_embedding.")] = "total",
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

    Models of one size share a trunk, from which a branch leaves for every number of tokens. `seedbed scale
    run` trains what --out wrote.
    """
    from cluster.ladders.designs import Asked, designed
    from cluster.render_scale import design_text
    from evals.scaling.design import Grid
    from seedbed.files import write_json

    if extra and not law:
        raise UsageError("--extra needs --law", "give the runs whose law is to be narrowed")
    if extra and not budget:
        raise UsageError("--extra adds cells to rows of equal compute", "give --budget instead of --tokens")
    if nodes is not None and on is None:
        raise UsageError("--nodes counts machines of the devices that --on names", "add --on 8xH100")
    grid = Grid(tuple(budget or ()), sizes, span, warmup, decay, tuple(tokens or ()), tuple(size or ()))
    value = designed(Asked(recipe, sets or [], grid, count, mup, law, extra, on, nodes, price))
    if out:
        write_json(out, value)
    emit(value, json=json, render=design_text)
