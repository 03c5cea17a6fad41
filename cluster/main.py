"""The command line. `seedbed --help` must answer at once, so nothing heavy is imported here."""

import sys
from importlib.util import find_spec
from pathlib import Path

import typer

import seedbed
from cluster.commands import (
    checkpoint,
    cluster,
    data,
    evaluation,
    exchange,
    generate,
    pipeline,
    plan,
    runs,
    scale,
    settings,
    sweep,
    train,
)
from seedbed.errors import EXIT_USAGE

app = typer.Typer(
    name="seedbed",
    help="Grow language models: raw text to a trained, evaluated model, the same on any number of machines.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(data.app, name="data")
app.command("train")(train.train)
app.command("plan")(plan.plan)
app.command("pipeline")(pipeline.pipeline)
app.command("sweep")(sweep.sweep)
app.command("submit")(cluster.submit)
app.command("list")(runs.list_)
app.command("status")(cluster.status)
app.command("logs")(cluster.logs)
app.command("top")(cluster.top)
app.command("stop")(cluster.stop)
app.command("resume")(cluster.resume)
app.add_typer(cluster.app, name="cluster")
app.command("generate")(generate.generate)
app.command("eval")(evaluation.evaluate)
app.command("contest")(evaluation.contest)
app.command("probe")(evaluation.probe)
app.command("import")(exchange.import_)
app.command("export")(exchange.export)
app.add_typer(checkpoint.app, name="checkpoint")
app.add_typer(runs.app, name="runs")
app.add_typer(scale.app, name="scale")
app.command("report")(runs.report)
app.command("doctor")(runs.doctor)
app.command("demo")(train.demo)
app.command("settings")(settings.settings)


ROOMS = ("data", "models", "training", "evals")


def _refuse_shadowed_rooms() -> None:
    """With a PYTHONPATH, a user's own `data.py` could stand in for ours, here and in every worker."""
    home = Path(seedbed.__file__).resolve().parent.parent
    for room in ROOMS:
        spec = find_spec(room)
        if spec is None or spec.origin is None or Path(spec.origin).resolve().parent.parent != home:
            found = spec.origin if spec else "nothing"
            print(
                f"error: the package '{room}' of Seedbed is hidden by {found}\n"
                "  fix: take that folder off PYTHONPATH",
                file=sys.stderr,
            )
            raise SystemExit(EXIT_USAGE)


def main() -> None:
    """The console script `seedbed`."""
    _refuse_shadowed_rooms()
    # Long output into `head` or a pager that quits must not end in a traceback.
    try:
        app()
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(141) from None
