"""`seedbed scale`: laws of how the loss falls with size and data."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.commands import scale_plan, scale_run
from cluster.commands.options import Json
from cluster.output import command, emit
from seedbed.errors import UsageError

if TYPE_CHECKING:
    from evals.scaling.study import Recipe

app = typer.Typer(
    help="Plan, run, fit and test scaling laws, and say what they do not know.", no_args_is_help=True
)

Runs = Annotated[
    Path, typer.Argument(metavar="CSV", help="A row for each run: N, D (or C), loss; U if data repeat.")
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column", metavar="N=NAME", help="Which column is N, D, C, loss or U (unique tokens). Repeatable."
    ),
]
Counts = Annotated[
    list[str] | None,
    typer.Option(
        "--count", metavar="COLUMN", help="Another count of each run's parameters, to compare. Repeatable."
    ),
]
Objective = Annotated[str, typer.Option(help="huber (of log loss), squared_log, or squared (of the loss).")]
DropHighest = Annotated[int, typer.Option(min=0, help="Leave out so many of the highest losses.")]
Asymptote = Annotated[float | None, typer.Option(help="Hold E at this loss instead of fitting it.")]
Bootstraps = Annotated[int, typer.Option(min=100, help="Resamples for the intervals.")]
Seed = Annotated[int, typer.Option(help="Of the resamples.")]
Compute = Annotated[
    list[float] | None,
    typer.Option(help="FLOP to say the best N and D for. Repeatable. Default: of the largest run."),
]


@app.callback()
def _several() -> None:
    """Plan, run, fit and test scaling laws, and say what they do not know."""


app.command("plan")(scale_plan.plan)
app.command("run")(scale_run.run)


@app.command("fit")
@command
def fit(
    points: Runs,
    column: Columns = None,
    count: Counts = None,
    compute: Compute = None,
    objective: Objective = "huber",
    drop_highest: DropHighest = 0,
    asymptote: Asymptote = None,
    bootstraps: Bootstraps = 1000,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Fit L = E + A / N^alpha + B / D^beta, with intervals, and what the points do not determine.

    The sum of Huber's loss of log losses, from many starts (Hoffmann et al. 2022, as Besiroglu et al. 2024
    mended it).
    """
    from cluster.render_scale import fit_text
    from evals.scaling.report import fitted

    recipe = _recipe(column, count, objective, drop_highest, asymptote, bootstraps, seed)
    emit(fitted(points, recipe, compute or []), json=json, render=fit_text)


@app.command("forecast")
@command
def forecast(
    points: Runs,
    column: Columns = None,
    compute: Compute = None,
    parameters: Annotated[
        float | None, typer.Option(help="With --tokens: of one run, to be trained.")
    ] = None,
    tokens: Annotated[float | None, typer.Option(help="With --parameters: that it sees.")] = None,
    serve: Annotated[
        float | None, typer.Option(metavar="TOKENS", help="To be served: weigh training against serving.")
    ] = None,
    unique: Annotated[
        float | None, typer.Option(metavar="TOKENS", help="That there are: more must repeat them.")
    ] = None,
    max_epochs: Annotated[float | None, typer.Option(min=1, help="With --unique: the most of them.")] = None,
    register: Annotated[
        Path | None, typer.Option(metavar="LEDGER", help="Register the forecasts in this file, to be scored.")
    ] = None,
    name: Annotated[str, typer.Option(help="With --register: what the forecast is of.")] = "",
    objective: Objective = "huber",
    drop_highest: DropHighest = 0,
    asymptote: Asymptote = None,
    bootstraps: Bootstraps = 1000,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """The best size and tokens for a budget, their loss, or that of a run, before it is made.

    --register writes each forecast, with the time, into a file of which every line proves those before it;
    `seedbed scale score` adds what came of them.
    """
    from cluster.render_scale import forecasts_text
    from evals.scaling.forecasts import Asked, forecasts

    recipe = _recipe(column, None, objective, drop_highest, asymptote, bootstraps, seed)
    asked = Asked(tuple(compute or ()), parameters, tokens, serve, unique, max_epochs)
    value = forecasts(points, recipe, asked, register=register, name=name)
    emit(value, json=json, render=forecasts_text)


@app.command("score")
@command
def score(
    ledger: Annotated[Path, typer.Argument(metavar="LEDGER", help="Where forecasts were registered.")],
    of: Annotated[int | None, typer.Option(help="Number of the forecast that --loss is of.")] = None,
    loss: Annotated[float | None, typer.Option(help="That the run ended with, in nats per token.")] = None,
    note: Annotated[str, typer.Option(help="With --loss: such as the run's directory.")] = "",
    expect: Annotated[
        str | None, typer.Option(metavar="DIGEST", help="Of a line that must still be there.")
    ] = None,
    json: Json = False,
) -> None:
    """Prove a file of forecasts, add what came of one, and show how often intervals held the loss."""
    from cluster.render_scale import ledger_text
    from evals.scaling import ledger as book

    if (of is None) != (loss is None):
        raise UsageError("--of and --loss go together", "such as --of 1 --loss 2.31")
    if not ledger.exists():
        raise UsageError(f"{ledger} does not exist", "register a forecast: seedbed scale forecast --register")
    book.read(ledger, expect)
    if of is not None and loss is not None:
        book.score(ledger, of, loss, note=note)
    emit(book.table(book.read(ledger)), json=json, render=ledger_text)


@app.command("report")
@command
def report(
    points: Runs,
    out: Annotated[Path, typer.Option(help="Where to write the page.")] = Path("scaling.html"),
    column: Columns = None,
    count: Counts = None,
    compute: Compute = None,
    ledger: Annotated[Path | None, typer.Option(help="Forecasts to show with what came of them.")] = None,
    objective: Objective = "huber",
    drop_highest: DropHighest = 0,
    asymptote: Asymptote = None,
    bootstraps: Bootstraps = 1000,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Write a page: the points with the law, IsoFLOP parabolas, frontier, residuals, intervals, doubts."""
    from evals.scaling.page import write_page

    recipe = _recipe(column, count, objective, drop_highest, asymptote, bootstraps, seed)
    path = write_page(points, out, recipe, compute or [], ledger)
    emit({"report": str(path)}, json=json, render=lambda value: value["report"])


@app.command("law")
@command
def law(
    kind: Annotated[
        str,
        typer.Argument(metavar="LAW", help="power, critical-batch, steps, kl-rl, kl-bon or error."),
    ],
    points: Annotated[Path, typer.Argument(metavar="CSV", help="A row for each point.")],
    column: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="x=NAME", help="Which column a quantity is in. Repeatable."),
    ] = None,
    json: Json = False,
) -> None:
    """Fit a law of other quantities, with intervals.

    power: y over x, such as a batch size or a learning rate over N. critical-batch: steps S to one loss over
    the batch B. steps: loss over N and S. kl-rl, kl-bon: reward over KL. error: downstream error over loss.
    """
    from cluster.render_scale import law_text
    from evals.scaling.other_laws import fit_other

    emit(fit_other(kind, points, _columns(column)), json=json, render=law_text)


@app.command("by-size")
@command
def by_size(
    results: Annotated[
        list[Path],
        typer.Argument(metavar="JSON...", help="Of `contest --reference`, or `eval --tasks preferences`."),
    ],
    out: Annotated[Path, typer.Option(help="Where to write the page.")] = Path("by-size.html"),
    json: Json = False,
) -> None:
    """Show results of models of several sizes: whose answers are preferred, how well reward models judge."""
    from cluster.render_scale import by_size_text
    from evals.scaling.by_size import by_size as gathered
    from evals.scaling.by_size import write_page

    value = gathered(results)
    write_page(value, out)
    emit({**value, "report": str(out)}, json=json, render=by_size_text)


def _recipe(
    column: list[str] | None,
    count: list[str] | None,
    objective: str,
    drop_highest: int,
    asymptote: float | None,
    bootstraps: int,
    seed: int,
) -> "Recipe":
    from evals.scaling.study import Recipe

    return Recipe(objective, drop_highest, bootstraps, seed, asymptote, _columns(column), tuple(count or ()))


def _columns(given: list[str] | None) -> dict[str, str]:
    pairs = [one.partition("=") for one in given or []]
    if wrong := [name for name, equals, value in pairs if not (name and equals and value)]:
        raise UsageError(f"--column {wrong[0]} is no NAME=COLUMN", "such as --column N=params")
    return {name: value for name, _, value in pairs}
