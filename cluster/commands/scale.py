"""`seedbed scale`: laws of how the loss falls with size and data."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.commands.options import Json
from cluster.output import command, emit
from seedbed.errors import UsageError

app = typer.Typer(help="Fit scaling laws, and say what they do not know.", no_args_is_help=True)


@app.callback()
def _several() -> None:
    """Fit scaling laws, and say what they do not know."""


@app.command("fit")
@command
def fit(
    points: Annotated[Path, typer.Argument(metavar="CSV", help="A row for each run: N, D (or C), loss.")],
    column: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="N=NAME", help="Which column is N, D, C or loss. Repeatable."),
    ] = None,
    compute: Annotated[
        list[float] | None,
        typer.Option(help="FLOP to say the best N and D for. Repeatable. Default: of the largest run."),
    ] = None,
    objective: Annotated[
        str, typer.Option(help="huber (of log loss), squared_log, or squared (of the loss).")
    ] = "huber",
    drop_highest: Annotated[int, typer.Option(min=0, help="Leave out so many of the highest losses.")] = 0,
    bootstraps: Annotated[int, typer.Option(min=100, help="Resamples for the intervals.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the resamples.")] = 0,
    json: Json = False,
) -> None:
    """Fit L = E + A / N^alpha + B / D^beta, with intervals, and what the points do not determine.

    The sum of Huber's loss of log losses, from many starts (Hoffmann et al. 2022, as Besiroglu et al. 2024
    mended it).
    """
    from evals.scaling.report import fitted

    pairs = [one.partition("=") for one in column or []]
    if wrong := [name for name, equals, value in pairs if not (name and equals and value)]:
        raise UsageError(f"--column {wrong[0]} is no NAME=COLUMN", "such as --column N=params")
    value = fitted(
        points,
        columns={name: given for name, _, given in pairs},
        budgets=compute or [],
        objective=objective,
        drop_highest=drop_highest,
        bootstraps=bootstraps,
        seed=seed,
    )
    emit(value, json=json, render=_shown)


def _shown(value: dict[str, Any]) -> str:
    ends = value["intervals"]
    lines = [
        f"L = E + A / N^alpha + B / D^beta, {value['points']} points, {value['objective_name']} "
        f"{value['objective']:.6g}; {value['agreeing']:.0%} of {value['starts']} starts agree"
    ]
    lines += [
        f"  {name:<5} {value[name]:.5g} [{ends[name][0]:.5g}, {ends[name][1]:.5g}]"
        for name in ("E", "A", "alpha", "B", "beta")
    ]
    for best in value["optima"]:
        low, high = best["tokens_per_parameter_interval"]
        lines.append(
            f"{best['compute']:.3g} FLOP: {best['parameters']:.4g} parameters, {best['tokens']:.4g} tokens, "
            f"{best['tokens_per_parameter']:.3g} tokens per parameter [{low:.3g}, {high:.3g}], loss "
            f"{best['loss']:.4f} [{best['loss_interval'][0]:.4f}, {best['loss_interval'][1]:.4f}]"
        )
    lines += [f"left out, {told}" for told in value["left_out"]]
    lines += [f"! {told}" for told in value["warnings"]]
    return "\n".join(lines)
