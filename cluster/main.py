"""The command line. `seedbed --help` must answer at once, so nothing heavy is imported here."""

import sys

import typer

from cluster.commands import checkpoint, data, evaluation, runs, train

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
app.command("plan")(train.plan)
app.command("generate")(evaluation.generate)
app.command("eval")(evaluation.evaluate)
app.add_typer(checkpoint.app, name="checkpoint")
app.add_typer(runs.app, name="runs")
app.command("report")(runs.report)
app.command("doctor")(runs.doctor)
app.command("demo")(train.demo)


def main() -> None:
    """The console script `seedbed`."""
    # Long output into `head` or a pager that quits must not end in a traceback.
    try:
        app()
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(141) from None
