"""`seedbed data`: build and inspect token shards."""

import itertools
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.commands import examples
from cluster.commands.options import Json, JsonLines, Sets
from cluster.output import command, emit, emit_line
from seedbed.errors import DataError, UsageError

if TYPE_CHECKING:
    from data.build.workers import Workers

MAX_WORKERS_PER_CORE = 4

app = typer.Typer(help="Build and inspect token shards.", no_args_is_help=True)


app.command("preview")(examples.preview)
app.command("judge")(examples.judge)
app.command("exercise")(examples.exercise)


@app.command("build")
@command
def build(
    source: Annotated[
        str,
        typer.Argument(help="stdlib, a folder, a text, .jsonl(.gz|.zst) or Parquet file, hf:NAME, or a URL."),
    ] = "stdlib",
    out: Annotated[Path, typer.Option("--out", help="Directory to write; must not exist yet.")] = Path(
        "dataset"
    ),
    workers: Annotated[
        int | None, typer.Option(min=1, help="Parts worked at once. [default: all cores]", show_default=False)
    ] = None,
    on: Annotated[
        str, typer.Option(metavar="PLACE", help="local processes, ray, or the address of a Ray cluster.")
    ] = "local",
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Turn raw text into tokenizer, token shards and a held-out split.

    Every field of [data] can be given by --set, such as data.vocab_size=8192, data.pattern='*.md' or
    data.filters='["gopher_quality"]'. The result does not depend on the workers, and a build that
    was killed goes on from the parts that it had finished.
    """
    from data.build import build_dataset
    from data.inspect import inspect_dataset
    from training.recipes import make_config, merge, parse_overrides

    overrides = parse_overrides(sets or [])
    if others := overrides.keys() - {"data"}:
        raise UsageError(
            f"a dataset has no settings of [{sorted(others)[0]}]", "give settings of [data] alone"
        )
    if "source" in overrides.get("data", {}):
        raise UsageError("the source is given twice", "leave out --set data.source")
    config = make_config(merge({"data": {"source": source}}, overrides), "data build").data
    cores = len(os.sched_getaffinity(0))
    if on == "local" and (workers or 0) > MAX_WORKERS_PER_CORE * cores:
        raise UsageError(
            f"--workers {workers} on {cores} cores", f"use at most {MAX_WORKERS_PER_CORE * cores}"
        )
    # Like Ctrl-C: the same command goes on from the finished parts.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    path = build_dataset(config, out, _workers(workers or cores, on))
    emit(inspect_dataset(path, num_samples=0), json=json, render=_describe)


@app.command("inspect")
@command
def inspect(
    path: Annotated[str, typer.Argument(help="A data set directory, or its URL.")],
    samples: Annotated[int, typer.Option(help="Documents to show, decoded.")] = 3,
    verify: Annotated[bool, typer.Option("--verify", help="Check every byte against its hash.")] = False,
    json: Json = False,
) -> None:
    """Show documents, tokens, bytes per token, drops, lengths and some documents of a data set."""
    from data.inspect import inspect_dataset

    emit(inspect_dataset(path, num_samples=samples, verify=verify), json=json, render=_describe)


@app.command("drops")
@command
def drops(
    path: Annotated[str, typer.Argument(help="A data set directory, or its URL.")],
    reason: Annotated[str, typer.Option(help="Only these, such as exact_duplicate.")] = "",
    limit: Annotated[int, typer.Option(min=0, help="At most so many; 0: all.")] = 0,
    json: JsonLines = False,
) -> None:
    """List documents that were not taken, or only repaired: id, source, reason and detail."""
    from data.shards import Dataset

    dataset = Dataset.open(path)
    known = {*dataset.manifest["drops"], "replaced", "repeated_id"}
    known |= {name.partition(".")[0] for name in known}
    if reason and reason not in known:
        raise UsageError(
            f"nothing was dropped from {path} for {reason!r}", f"the reasons are: {', '.join(sorted(known))}"
        )
    rows = (row for row in dataset.drops() if reason in ("", row["reason"], row["reason"].partition(".")[0]))
    for row in itertools.islice(rows, limit or None):
        emit_line(row, json=json, render=lambda row: f"{row['reason']}  {row['id']}  {row['detail']}")


@app.command("trace")
@command
def trace(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe, a .toml file, or a run directory.")],
    steps: Annotated[str, typer.Option(metavar="A:B", help="First and last step, from 1.")] = "1:10",
    sets: Sets = None,
    json: JsonLines = False,
) -> None:
    """Print the hash of what each step reads; for a run, beside the hash that it recorded.

    Two runs with the same hashes learnt from the same samples in the same order, on whatever number
    of ranks. Ends with exit code 3 when a run recorded another hash than its configuration gives.
    """
    from training.recipes import load_config, make_config, merge, parse_overrides
    from training.run_directory import RunDirectory, is_run
    from training.tracing import trace

    first, last = _steps(steps)
    run = Path(recipe) if is_run(Path(recipe)) else None
    if run:
        tables = RunDirectory(run).config().model_dump(mode="json")
        config = make_config(merge(tables, parse_overrides(sets or [])), recipe)
    else:
        config = load_config(recipe, sets or [])
    different = 0
    for row in trace(config, first, last, run):
        different += not row.get("same", True)
        emit_line(row, json=json, render=_traced)
    if different:
        raise DataError(
            f"{different} of the steps {steps} read other data than {recipe} recorded",
            "the dataset or the code that orders it is another than the run's",
        )


def _traced(row: dict[str, Any]) -> str:
    sources = "  ".join(f"{name} {count:,}" for name, count in row.get("sources", {}).items())
    verdict = ""
    if "recorded" in row:
        verdict = "as recorded" if row["same"] else f"recorded: {row['recorded']}"
    shown = (
        f"step {row['step']:>8,}  position {row['position']:>12,}  {row['data_hash']}  {sources}  {verdict}"
    )
    return shown.rstrip()


def _steps(asked: str) -> tuple[int, int]:
    first, colon, last = asked.partition(":")
    if not (first.isdecimal() and (last if colon else first).isdecimal()):
        raise UsageError(f"--steps {asked} is not of the form A:B", "for example --steps 1:10")
    pair = int(first), int(last if colon else first)
    if not 1 <= pair[0] <= pair[1]:
        raise UsageError(f"--steps {asked}: steps count from 1 and ascend", "for example --steps 1:10")
    return pair


def _workers(num_workers: int, on: str) -> "Workers":
    if on == "local":
        from data.build.workers import LocalProcesses

        return LocalProcesses(num_workers)
    from cluster.ray_workers import RayWorkers

    return RayWorkers(num_workers, "" if on == "ray" else on)


def _describe(report: dict[str, Any]) -> Any:
    from cluster.render import dataset_view

    return dataset_view(report)
