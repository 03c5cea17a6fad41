"""`seedbed scale run`: a ladder is trained, fitted, and what was held out of it forecast first."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.commands.options import Json, Sets
from cluster.commands.pipeline import Experiment, On, Price, Store, Tracker
from cluster.output import command, emit, note
from seedbed.errors import EXIT_OTHER, UsageError

if TYPE_CHECKING:
    from cluster.ladders.runner import LadderRunner

Name = Annotated[
    str | None,
    typer.Argument(metavar="LADDER", help="One that ships, a .toml file, or what `scale plan --out` wrote."),
]
Folder = Annotated[
    Path | None, typer.Option("--out", help="Its folder: table, forecasts, page. Default: runs/LADDER.")
]
HoldOut = Annotated[
    float | None,
    typer.Option(metavar="FLOP", help="Forecast cells of more compute from the others, before they are run."),
]
Redo = Annotated[
    list[str] | None,
    typer.Option("--redo", metavar="STAGE", help="Train it again: a cell, or a leg of a trunk."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the cells with their cost, and do nothing.")]
AtOnce = Annotated[int, typer.Option("--at-once", min=1, help="Runs that train at a time on this machine.")]


@command
def run(
    ladder: Name = None,
    out: Folder = None,
    store: Store = None,
    sets: Sets = None,
    hold_out: HoldOut = None,
    redo: Redo = None,
    dry_run: DryRun = False,
    price: Price = None,
    at_once: AtOnce = 1,
    on: On = "local",
    mlflow: Tracker = "",
    experiment: Experiment = "seedbed",
    list_: Annotated[bool, typer.Option("--list", help="List those that ship.")] = False,
    json: Json = False,
) -> None:
    """Train a ladder: trunks, a branch for each cell, a law of what came of them.

    With cells held out, the law of the others forecasts their losses; the forecasts are registered before
    those cells are trained, and scored after. The same command again runs what is not done. Ends with exit
    code 1 when a cell failed; one that diverged is marked and left out of the fit.
    """
    if list_:
        return _list_ladders(json)
    if ladder is None:
        raise UsageError("no ladder given", "seedbed scale run scale-demo; --list shows those that ship")
    from cluster.pipelines.places import place_to_train
    from cluster.pipelines.runner import mirrored_programme
    from cluster.render_scale import ladder_cost_text, ladder_text

    how = {"price": price, "redo": redo or [], **place_to_train(on, at_once)}
    runner = _runner(ladder, sets or [], hold_out, out, store, **how)
    cost = runner.cost()
    if dry_run:
        return emit({**runner.value("planned"), "cost": cost}, json=json, render=ladder_text)
    note(ladder_cost_text(cost))
    with mirrored_programme(runner.folder, mlflow, experiment):
        value = {**runner.run(), "cost": cost}
    emit(value, json=json, render=ladder_text)
    if any(cell["state"] == "failed" for cell in value["cells"]):
        raise SystemExit(EXIT_OTHER)
    return None


def _list_ladders(json: bool) -> None:
    from cluster.pipelines import shipped

    emit(
        {"ladders": shipped("cluster.ladders")},
        json=json,
        render=lambda v: "\n".join(f"{n}  {d}" for n, d in v["ladders"].items()),
    )


def _runner(
    ladder: str, sets: list[str], hold_out: float | None, out: Path | None, store: Path | None, **how: Any
) -> "LadderRunner":
    """The ladder of that name or path, looked at."""
    from cluster.ladders.designs import read_ladder
    from cluster.ladders.runner import LadderRunner
    from cluster.pipelines.store import default_store

    asked = read_ladder(ladder, sets, hold_out)
    kept = store.expanduser().absolute() if store else default_store()
    runner = LadderRunner(asked, out or Path("runs") / asked.name, kept, tell=note, **how)
    runner.look()
    return runner
