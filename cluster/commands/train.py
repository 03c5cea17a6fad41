"""`seedbed train` and `demo`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.commands.options import Json, Sets
from cluster.output import command, emit
from seedbed.errors import UsageError

if TYPE_CHECKING:
    from training.run_directory import RunDirectory

Recipe = Annotated[str | None, typer.Argument(help="A shipped recipe or the path of a .toml file.")]


RunPath = Annotated[
    Path | None, typer.Option("--run-dir", help="Where the run lives. Default: runs/RECIPE-TIME.")
]
Resume = Annotated[
    Path | None,
    typer.Option("--resume", metavar="RUN", help="Continue this run, or go back to this step-N of it."),
]
Fork = Annotated[
    Path | None,
    typer.Option(
        "--fork",
        metavar="NEW_DIR",
        help="With --resume: branch off into a new run, which may differ in all that needs no other state.",
    ),
]
InitFrom = Annotated[
    Path | None, typer.Option("--init-from", metavar="CHECKPOINT", help="Start from these weights alone.")
]
BranchFrom = Annotated[
    Path | None,
    typer.Option(
        "--branch-from",
        metavar="RUN",
        help="Begin as a branch of this run, with its optimizer and place in the data, but this recipe.",
    ),
]
Origins = tuple[Path | None, Path | None]
"""--init-from and --branch-from."""
MicroBatch = Annotated[
    str | None,
    typer.Option(
        "--micro-batch", metavar="auto", help="Find the largest micro-batch that fits, once, by trying."
    ),
]
VerifyExact = Annotated[
    bool,
    typer.Option(
        "--verify-exact",
        help="Prove on a few steps of this recipe that neither ranks nor engine show in the weights.",
    ),
]
Profile = Annotated[
    str | None,
    typer.Option(
        "--profile", metavar="FIRST:LAST", help="Write down where the time of these steps goes, on rank 0."
    ),
]


@command
def train(
    recipe: Recipe = None,
    run_dir: RunPath = None,
    resume: Resume = None,
    fork: Fork = None,
    init_from: InitFrom = None,
    branch_from: BranchFrom = None,
    sets: Sets = None,
    micro_batch: MicroBatch = None,
    verify_exact: VerifyExact = False,
    profile: Profile = None,
    list_recipes: Annotated[bool, typer.Option("--list", help="List the shipped recipes.")] = False,
    json: Json = False,
) -> None:
    """Train a model, from raw text if need be, until it is done. Takes its place under torchrun and srun.

    The same command again continues the run. SIGTERM or Ctrl-C saves a checkpoint and exits with 5.
    """
    if list_recipes:
        return _list_recipes(json)
    if verify_exact:
        alone = not any((run_dir, resume, fork, init_from, branch_from))
        return _verify_exact(recipe, sets or [], json, alone=alone)
    from cluster.external_launch import ExternalLauncher, become_worker, default_run_dir, rank_here
    from cluster.runner import announce, run_supervised
    from training.run_directory import RunDirectory
    from training.supervisor import Supervisor

    place = rank_here()
    if place and recipe and not run_dir:
        run_dir = default_run_dir(place, recipe)
    origins = (init_from, branch_from)
    path = _run_path(recipe, run_dir, resume, fork, origins)
    if place and place.rank:
        return become_worker(place, path)
    launcher = ExternalLauncher(place, path) if place else None
    sets = sets or []
    if profile is not None:
        _check_ahead(profile, resume or path)
        sets = [*sets, f'tracking.profile="{profile}"']
    if micro_batch is not None:
        _check_micro_batch(micro_batch, resume)
    if place:
        sets = [*sets, f"engine.num_ranks={place.num_ranks}", "run.max_restarts=0"]
    with RunDirectory(path).lock() as lock:
        try:
            if micro_batch is not None:
                sets = [*sets, f"batch.micro_batch_size={_micro_batch_size(path, str(recipe), sets)}"]
            run, notices = _prepared(path, recipe, resume, fork, origins, sets)
        except BaseException as error:
            RunDirectory(path).discard_if_unused()
            if launcher:
                launcher.refused(error)
            raise
        announce(run, notices)
        summary = run_supervised(Supervisor(run, lock, launcher), run)
        if launcher:
            launcher.close()
    emit(summary, json=json, render=_summary_text)
    return None


def _run_path(
    recipe: str | None, run_dir: Path | None, resume: Path | None, fork: Path | None, origins: Origins
) -> Path:
    """Where the run lives; raises UsageError when flags contradict each other."""
    from training.run_directory import RunDirectory

    if all(origins):
        raise UsageError("--init-from and --branch-from contradict each other", "leave out one of them")
    if resume is None:
        if fork is not None:
            raise UsageError("--fork needs a run to branch off from", "add --resume RUN")
        if recipe is None:
            raise UsageError("no recipe given", "seedbed train gpt-demo; --list shows the shipped recipes")
        if run_dir is None:
            from datetime import datetime

            stem = Path(recipe).stem
            run_dir = Path("runs") / f"{stem}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
        return run_dir
    from_elsewhere = zip(origins, ("--init-from", "--branch-from"), strict=True)
    for value, flag in ((recipe, "a recipe"), (run_dir, "--run-dir"), *from_elsewhere):
        if value is not None:
            raise UsageError(f"--resume and {flag} contradict each other", f"leave out {flag}")
    if fork is None:
        path, _ = _run_and_step(resume)
        RunDirectory.existing(path)
        return path
    return fork


def _prepared(
    path: Path,
    recipe: str | None,
    resume: Path | None,
    fork: Path | None,
    origins: Origins,
    sets: Sets,
) -> tuple["RunDirectory", list[str]]:
    from training import prepare

    if resume is None:
        return prepare.start(str(recipe), sets or [], path, *origins)
    if fork is not None:
        return prepare.fork(resume, path, sets or [])
    return prepare.resume(path, sets or [], _run_and_step(resume)[1])


def _check_micro_batch(micro_batch: str, resume: Path | None) -> None:
    if micro_batch != "auto":
        size = micro_batch if micro_batch.isdecimal() else 8
        raise UsageError(
            f"--micro-batch {micro_batch}: it takes 'auto' alone",
            f"for a size of your own: --set batch.micro_batch_size={size}",
        )
    if resume is not None:
        raise UsageError(
            "--resume and --micro-batch contradict each other: a run keeps its own", "leave it out"
        )


def _micro_batch_size(path: Path, recipe: str, sets: list[str]) -> int:
    """What was found when the run at `path` began, or else what is found now."""
    from cluster.micro_batch import largest_micro_batch
    from training.run_directory import RunDirectory, is_run

    if is_run(path):
        return RunDirectory(path).config().batch.micro_batch_size
    return largest_micro_batch(recipe, sets, path.parent)


def _check_ahead(profile: str, run: Path) -> None:
    """Raises UsageError when steps are to be profiled that are none, or that are trained already."""
    from training.checkpoint.layout import list_steps
    from training.sections import profiled_steps

    try:
        steps = profiled_steps(profile)
    except ValueError as error:
        raise UsageError(f"--profile: {error}", "for example --profile 10:13") from None
    path, newest = _run_and_step(run)
    newest = max(list_steps(path), default=0) if newest is None else newest
    if steps[0] <= newest:
        raise UsageError(
            f"--profile {profile}: {path} is trained up to step {newest} already",
            f"give later steps, such as --profile {newest + 2}:{newest + 4}",
        )


def _run_and_step(path: Path) -> tuple[Path, int | None]:
    """A run directory, or the one that a checkpoints/step-N belongs to, with N."""
    from training.checkpoint.layout import MANIFEST, run_of

    if (path / MANIFEST).is_file() and path.name.startswith("step-"):
        return run_of(path), int(path.name.removeprefix("step-"))
    return path, None


def _summary_text(summary: dict[str, Any]) -> str:
    from cluster.render import measured_text
    from training.metrics import scores_text

    lines = [f"{summary['state']}: step {summary['step']}, {summary['tokens']:,} tokens"]
    if summary["val_loss"] is not None:
        lines[0] += f", validation loss {summary['val_loss']:.4f}"
        if summary["scores"]:
            lines[0] += f" ({scores_text(summary['scores'])})"
    lines += [measured_text(summary["plan"]), f"report: {summary['report']}", "next:"]
    run, writes = summary["run"], summary["val_bits_per_byte"] is not None
    lines += [
        f"  seedbed generate {run} --prompt 'def '" if writes else "",
        f"  seedbed eval {run}" if writes else "",
        f"  seedbed runs show {run}",
    ]
    return "\n".join(line for line in lines if line)


def _verify_exact(recipe: str | None, sets: list[str], json: bool, *, alone: bool) -> None:
    if recipe is None or not alone:
        raise UsageError(
            "--verify-exact takes a recipe and --set, nothing else", "seedbed train gpt-demo --verify-exact"
        )
    from cluster.verify_exact import verification_text, verify_exact

    emit(verify_exact(recipe, sets), json=json, render=verification_text)


def _list_recipes(json: bool) -> None:
    from training.recipes import description_of, recipe_names

    recipes = {name: description_of(name) for name in recipe_names()}
    emit(
        {"recipes": recipes},
        json=json,
        render=lambda v: "\n".join(f"{n}  {d}" for n, d in v["recipes"].items()),
    )


@command
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for everything the demonstration makes.")] = Path(
        "demo"
    ),
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Grow a small GPT on this Python's standard library, kill a worker on the way, and report."""
    from cluster.demo import run_demo
    from cluster.render import demo_text

    emit(run_demo(out, sets or []), json=json, render=demo_text)
