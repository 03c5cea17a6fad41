"""`seedbed checkpoint`: list, verify, hash, compare, prune, fetch from a copy, and normalise rewards."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.commands.options import Json, RunDir, RunOrStep
from cluster.output import command, emit
from seedbed.errors import CheckpointError, DamagedError, DataError

app = typer.Typer(help="List, verify, hash, compare, prune and fetch checkpoints.", no_args_is_help=True)
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
        except DataError as error:
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
    rows, others = [], []
    for path in steps or [layout.resolve(checkpoint)]:
        try:
            Checkpoint.open(path).verify()
            rows.append({"path": str(path), "sound": True})
        except DataError as error:
            others += [] if isinstance(error, DamagedError) else [error.fix]
            rows.append({"path": str(path), "sound": False, "problem": error.message})
    if all(row["sound"] for row in rows):
        emit(
            {"checkpoints": rows},
            json=json,
            render=lambda v: "\n".join(f"sound: {r['path']}" for r in v["checkpoints"]),
        )
        return
    damaged = [row for row in rows if not row["sound"]]
    if others:
        # Not damage, which a resume puts aside: it would stop there.
        fix = others[0]
    elif len(damaged) < len(rows):
        fix = "resume the run: it puts damaged steps aside and uses the newest sound one"
    elif steps:
        fix = "no step is sound: if the run has a copy, `seedbed checkpoint fetch URL NEW_DIR` gets it"
    else:
        fix = "use another step of the run"
    raise CheckpointError("; ".join(str(row["problem"]) for row in damaged), fix)


@app.command("fetch")
@command
def fetch(
    url: Annotated[str, typer.Argument(metavar="URL", help="A run's checkpoint.copy_to.")],
    run: Annotated[Path, typer.Argument(metavar="NEW_DIR", help="A folder that does not exist yet.")],
    json: Json = False,
) -> None:
    """Make a run directory of a run's copy elsewhere, with its newest sound step."""
    from training.checkpoint.remote_copy import fetch

    step = fetch(url, run)
    value = {"run": str(run), "step": step, "from": url}
    emit(
        value,
        json=json,
        render=lambda v: f"step {v['step']} is in {v['run']}\nnext: seedbed train --resume {v['run']}",
    )


@app.command("prune")
@command
def prune(
    run: RunDir,
    keep: Annotated[int, typer.Option("--keep", min=2, help="Newest steps to keep.")] = 2,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    json: Json = False,
) -> None:
    """Delete steps but the newest, the best, every checkpoint.keep_every-th; not while the run is on."""
    from training.checkpoint import layout
    from training.checkpoint.reader import Checkpoint
    from training.run_directory import RunDirectory

    directory = RunDirectory.existing(run)
    config = directory.config().checkpoint
    with directory.lock():
        steps = layout.list_steps(run)
        newest = Checkpoint.open(layout.step_dir(run, steps[-1])) if steps else None
        best = newest.manifest["trainer"]["best"] if newest and config.keep_best else None
        doomed = layout.doomed(run, keep, config.keep_every, [best[1]] if best else [])
        sizes = [sum(file.stat().st_size for file in path.iterdir()) for path in doomed]
        if not dry_run:
            for path in doomed:
                layout.remove_step(path)
    value = {"deleted": [path.name for path in doomed], "bytes": sum(sizes), "dry_run": dry_run}

    def render(value: dict[str, Any]) -> str:
        from seedbed.progress import human_bytes

        names = ", ".join(value["deleted"]) or "nothing"
        return f"{'would delete' if dry_run else 'deleted'}: {names} ({human_bytes(value['bytes'])})"

    emit(value, json=json, render=render)


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


@app.command("normalize")
@command
def normalize(
    reward: RunOrStep,
    policy: Annotated[Path, typer.Option("--policy", metavar="RUN", help="Whose answers are to have them.")],
    out: Annotated[Path, typer.Option("--out", help="A new directory for the normalised model.")],
    prompts: Annotated[int, typer.Option(min=2, help="Prompts to answer, one answer each.")] = 300,
    temperature: Annotated[float, typer.Option(min=0, help="How answers are sampled.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Answers are a function of it.")] = 0,
    json: Json = False,
) -> None:
    """Shift and scale a reward model: mean 0 and variance 1 on a policy's own answers."""
    from training.rewards.comparisons import Sampling, sampled
    from training.rewards.normalization import normalize

    answers = [one.tokens for one in sampled(policy, Sampling("train", prompts, 1, temperature, seed))]
    found = normalize(reward, out, answers)
    emit(
        {"out": str(out), "answers": len(answers), **found},
        json=json,
        render=lambda value: (
            f"{value['out']}: rewards of {value['answers']:,} answers had mean {value['mean']:.3f} and "
            f"deviation {value['deviation']:.3f}, and have 0 and 1"
        ),
    )
