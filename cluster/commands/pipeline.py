"""`seedbed pipeline`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.commands.options import Json
from cluster.output import command, emit
from seedbed.errors import UsageError

Folder = Annotated[
    Path | None, typer.Option("--out", help="Its folder: record and links. Default: runs/PIPELINE.")
]
Store = Annotated[
    Path | None,
    typer.Option("--store", help="Where artefacts are kept. Default: $SEEDBED_ARTEFACTS, or runs/artefacts."),
]
StageSets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="STAGE.KEY=VALUE",
        help="A setting of a stage's recipe (gpt.run.steps=200) or an option of its command. Repeatable.",
    ),
]
On = Annotated[
    str,
    typer.Option(metavar="PLACE", help="Where runs train: local, ray, or the address of a Ray cluster."),
]
Tracker = Annotated[
    str,
    typer.Option(
        "--mlflow",
        metavar="URI",
        help="Copied to there. Default: mlflow.db beside its folder; none: nowhere.",
    ),
]
Experiment = Annotated[str, typer.Option("--experiment", help="Of MLflow.")]
Price = Annotated[float | None, typer.Option("--price", min=0, help="Of one device for one hour.")]
AtOnce = Annotated[
    int, typer.Option("--at-once", min=1, help="Stages at a time, where they are independent.")
]


@command
def pipeline(
    name: Annotated[
        str | None, typer.Argument(metavar="PIPELINE", help="One that ships, or the path of a .toml file.")
    ] = None,
    out: Folder = None,
    store: Store = None,
    sets: StageSets = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the graph with its cost, and do nothing.")
    ] = False,
    price: Price = None,
    redo: Annotated[
        list[str] | None,
        typer.Option("--redo", metavar="STAGE", help="Make its artefact again. Repeatable."),
    ] = None,
    at_once: AtOnce = 1,
    on: On = "local",
    mlflow: Tracker = "",
    experiment: Experiment = "seedbed",
    list_: Annotated[bool, typer.Option("--list", help="List those that ship.")] = False,
    json: Json = False,
) -> None:
    """Make all that a pipeline's stages make: what is done is skipped, what has changed is made again.

    The same command again goes on where it was stopped or killed, a training at its step.
    """
    from cluster.pipelines import shipped

    if list_:
        return emit(
            {"pipelines": shipped()},
            json=json,
            render=lambda v: "\n".join(f"{n}  {d}" for n, d in v["pipelines"].items()),
        )
    if name is None:
        raise UsageError("no pipeline given", "seedbed pipeline rlhf-demo; --list shows those that ship")
    from cluster.pipelines.places import place_to_train
    from cluster.pipelines.runner import dry, run
    from cluster.render_pipeline import pipeline_text

    arguments: dict[str, Any] = {"out": out, "store": store, "sets": sets or [], "price": price}
    if dry_run:
        return emit(dry(name, redo=redo or [], **arguments), json=json, render=pipeline_text)
    arguments |= {"how": place_to_train(on, at_once), "mlflow": mlflow, "experiment": experiment}
    value = run(name, redo=redo or [], **arguments)
    return emit(value, json=json, render=pipeline_text)
