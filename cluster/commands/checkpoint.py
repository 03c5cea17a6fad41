"""`seedbed checkpoint`: list, verify, hash and compare."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.commands.options import Json, RunDir, RunOrStep
from cluster.output import command, emit
from seedbed.errors import CheckpointError

app = typer.Typer(help="List, verify, hash and compare checkpoints.", no_args_is_help=True)
Optimizer = Annotated[bool, typer.Option("--optimizer", help="Include optimizer state.")]


@app.command("list")
@command
def list_(run: RunDir, json: Json = False) -> None:
    """The steps of a run that are on disk."""
    from training.checkpoint import layout
    from training.checkpoint.reader import Checkpoint
    from training.run_directory import RunDirectory

    RunDirectory.existing(run)
    rows: list[dict[str, Any]] = []
    for step in layout.list_steps(run):
        path = layout.step_dir(run, step)
        try:
            checkpoint = Checkpoint.open(path)
            rows.append(
                {
                    "step": step,
                    "position": checkpoint.position,
                    "bytes": checkpoint.num_bytes,
                    "ranks": checkpoint.manifest["world"]["num_ranks"],
                    "path": str(path),
                }
            )
        except CheckpointError as error:
            rows.append({"step": step, "path": str(path), "damaged": error.message})
    root = layout.checkpoints_dir(run)
    aside = sorted(p.name for p in root.iterdir() if p.name.startswith(("abandoned-", "quarantined-")))

    def render(value: dict[str, Any]) -> Any:
        from cluster.render import table

        return table(value["checkpoints"], ("step", "position", "bytes", "ranks", "path", "damaged"))

    emit({"checkpoints": rows, "set_aside": aside}, json=json, render=render)


@app.command("verify")
@command
def verify(checkpoint: RunOrStep, json: Json = False) -> None:
    """Check every byte of a step, or of all steps of a run; exits with 3 when one is damaged."""
    from training.checkpoint import layout
    from training.checkpoint.reader import Checkpoint

    steps = [layout.step_dir(checkpoint, s) for s in layout.list_steps(checkpoint)]
    rows = []
    for path in steps or [layout.resolve(checkpoint)]:
        try:
            Checkpoint.open(path).verify()
            rows.append({"path": str(path), "sound": True})
        except CheckpointError as error:
            rows.append({"path": str(path), "sound": False, "problem": error.message})
    if all(row["sound"] for row in rows):
        emit(
            {"checkpoints": rows},
            json=json,
            render=lambda v: "\n".join(f"sound: {r['path']}" for r in v["checkpoints"]),
        )
        return
    damaged = [row for row in rows if not row["sound"]]
    raise CheckpointError(
        "; ".join(str(row["problem"]) for row in damaged),
        "resume the run: it puts damaged steps aside and uses the newest sound one",
    )


@app.command("hash")
@command
def hash_(checkpoint: RunOrStep, optimizer: Optimizer = False, json: Json = False) -> None:
    """One SHA-256 over all canonical parameters: the same whatever engine or number of ranks wrote them."""
    from training.checkpoint.layout import resolve
    from training.checkpoint.reader import Checkpoint

    opened = Checkpoint.open(resolve(checkpoint))
    value = {
        "checkpoint": str(opened.path),
        "step": opened.step,
        "optimizer": optimizer,
        "hash": opened.hash(optimizer=optimizer),
    }
    emit(value, json=json, render=lambda v: str(v["hash"]))


@app.command("diff")
@command
def diff(
    left: RunOrStep,
    right: Annotated[Path, typer.Argument(metavar="RUN_OR_STEP", help="What to compare with.")],
    optimizer: Optimizer = False,
    json: Json = False,
) -> None:
    """Which tensors differ between two checkpoints, and by how much."""
    from training.checkpoint.layout import resolve
    from training.checkpoint.reader import Checkpoint, compare

    sides = [Checkpoint.open(resolve(path)) for path in (left, right)]
    rows = list(compare(sides[0], sides[1], optimizer=optimizer))

    def render(value: dict[str, Any]) -> Any:
        from cluster.render import table

        return (
            table(value["differences"], ("tensor", "difference", "largest"))
            if value["differences"]
            else "equal"
        )

    paths = [str(side.path) for side in sides]
    emit({"checkpoints": paths, "equal": not rows, "differences": rows}, json=json, render=render)
