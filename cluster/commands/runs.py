"""`seedbed runs`, `report` and `doctor`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.commands.options import Json, RunDir
from cluster.output import command, emit
from seedbed.errors import SeedbedError, UsageError

app = typer.Typer(help="List, show and compare runs.", no_args_is_help=True)


@app.command("list")
@command
def list_(
    folder: Annotated[Path, typer.Argument(help="Where to look for run directories.")] = Path("runs"),
    json: Json = False,
) -> None:
    """All runs in a folder, with how far they got."""
    from cluster.run_summary import summarize_run

    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}", "give the folder that holds your run directories")
    found = [path.parent for path in sorted(folder.glob("*/config.toml"))]
    columns = (
        "name",
        "state",
        "step",
        "steps",
        "loss",
        "val_loss",
        "val_bits_per_byte",
        "restarts",
        "started",
    )

    def render(value: dict[str, Any]) -> Any:
        from cluster.render import table

        return table(value["runs"], columns) if value["runs"] else f"no runs in {folder}"

    rows: list[dict[str, Any]] = []
    for path in found:
        try:
            rows.append(summarize_run(path))
        except (SeedbedError, OSError, ValueError) as error:
            rows.append({"name": path.name, "state": f"unreadable: {error}", "path": str(path)})
    emit({"runs": rows}, json=json, render=render)


@app.command("show")
@command
def show(run: RunDir, json: Json = False) -> None:
    """One run: state, progress, configuration differences, checkpoints, last events."""
    from cluster.render import run_view
    from cluster.run_summary import describe_run

    emit(describe_run(run), json=json, render=run_view)


@app.command("compare")
@command
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Two or more run directories.")], json: Json = False
) -> None:
    """Runs side by side: results, and the settings in which they differ."""
    from cluster.render import comparison_view
    from cluster.run_summary import compare_runs

    if len(runs) < 2:
        raise UsageError("one run has nothing to be compared with", "give two or more run directories")
    emit(compare_runs(runs), json=json, render=comparison_view)


@app.command("lineage")
@command
def lineage(
    model: Annotated[
        str, typer.Argument(help="What a stage made (runs/PIPELINE/STAGE), or with --uri a registered model.")
    ],
    uri: Annotated[str, typer.Option("--uri", help="MLflow, whose registry is asked.")] = "",
    json: Json = False,
) -> None:
    """What a model is made of, back to the data, by content."""
    from cluster.pipelines.lineage import lineage as found

    def line(entry: dict[str, Any]) -> str:
        made = " ".join(f"{name}={digest[:12]}" for name, digest in entry.get("inputs", {}).items())
        data = f" data={entry['data'][:12]}" if entry.get("data") else ""
        return f"{entry['stage']:<16} {entry['kind']:<8} {entry['digest'][:12]}  {made}{data}".rstrip()

    value = {"model": model, "lineage": found(model, uri)}
    emit(value, json=json, render=lambda v: "\n".join(line(entry) for entry in v["lineage"]))


@command
def report(run: RunDir, json: Json = False) -> None:
    """Write the run's report.html again, from its records."""
    from evals.report import write_report
    from training.run_directory import RunDirectory

    RunDirectory.existing(run)
    emit({"report": str(write_report(run))}, json=json, render=lambda v: str(v["report"]))


@command
def doctor(
    folder: Annotated[Path, typer.Option("--runs", help="Where runs will be written.")] = Path("runs"),
    json: Json = False,
) -> None:
    """Test what this machine can do, and say how to mend what fails."""
    from cluster.doctor import diagnose
    from cluster.render import doctor_view

    value = diagnose(folder)
    emit(value, json=json, render=doctor_view)
    if any(check["state"] == "failed" for check in value["checks"]):
        raise SystemExit(1)
