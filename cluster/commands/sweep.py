"""`seedbed sweep`."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.commands.options import Json, Sets
from cluster.commands.pipeline import Experiment, Folder, On, Price, Store, Tracker
from cluster.output import command, emit, note
from seedbed.errors import EXIT_OTHER, UsageError


@command
def sweep(
    name: Annotated[
        str | None, typer.Argument(metavar="SWEEP", help="One that ships, or the path of a .toml file.")
    ] = None,
    out: Folder = None,
    store: Store = None,
    sets: Sets = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the points with their cost, and do nothing.")
    ] = False,
    price: Price = None,
    at_once: Annotated[
        int, typer.Option("--at-once", min=1, help="Points that train at a time on this machine.")
    ] = 1,
    on: On = "local",
    csv: Annotated[Path | None, typer.Option("--csv", help="Also write the table there.")] = None,
    mlflow: Tracker = "",
    experiment: Experiment = "seedbed",
    list_: Annotated[bool, typer.Option("--list", help="List those that ship.")] = False,
    json: Json = False,
) -> None:
    """Train a recipe at many points of its settings: a grid, a list or draws, all to the end or by halving.

    The same command again runs what is not done. Ends with exit code 1 when a point failed; one that
    diverged is a result. The table is a CSV for `seedbed scale fit`.
    """
    from cluster.pipelines import shipped

    if list_:
        return emit(
            {"sweeps": shipped("cluster.sweeps")},
            json=json,
            render=lambda v: "\n".join(f"{n}  {d}" for n, d in v["sweeps"].items()),
        )
    if name is None:
        raise UsageError("no sweep given", "seedbed sweep lr-demo; --list shows those that ship")
    from cluster.pipelines.places import place_to_train
    from cluster.pipelines.runner import mirrored_programme
    from cluster.render_pipeline import cost_text, sweep_text
    from cluster.sweeps.runner import make_runner

    how = place_to_train(on, at_once)
    runner = make_runner(name, out=out, store=store, sets=sets or [], price=price, tell=note, **how)
    cost = runner.cost()
    if dry_run:
        value = {**runner.value("planned"), "cost": cost}
        return emit(value, json=json, render=sweep_text)
    note(cost_text(cost))
    with mirrored_programme(runner.folder, mlflow, experiment):
        value = {**runner.run(), "cost": cost}
    if csv is not None:
        from cluster.sweeps.results import write_csv

        write_csv(csv, value["points"], value["settings"])
    emit(value, json=json, render=sweep_text)
    if any(point["state"] == "failed" for point in value["points"]):
        raise SystemExit(EXIT_OTHER)
    return None
