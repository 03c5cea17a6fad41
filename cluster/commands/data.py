"""`seedbed data`: build and inspect token shards."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.commands.options import Json, Sets
from cluster.output import command, emit

app = typer.Typer(help="Build and inspect token shards.", no_args_is_help=True)


@app.command("build")
@command
def build(
    source: Annotated[
        str, typer.Argument(help="stdlib, a folder, a text file, or .jsonl(.gz|.zst).")
    ] = "stdlib",
    out: Annotated[Path, typer.Option("--out", help="Directory to write; must not exist yet.")] = Path(
        "dataset"
    ),
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Turn raw text into tokenizer, token shards and a held-out split.

    Every field of [data] can be given by --set, such as data.vocab_size=8192, data.pattern='*.md'
    or data.on_undecodable=replace.
    """
    from data.build import build_dataset
    from data.inspect import inspect_dataset
    from training.recipes import make_config, merge, parse_overrides

    config = make_config(merge({"data": {"source": source}}, parse_overrides(sets or [])), "data build").data
    path = build_dataset(config, out)
    emit(inspect_dataset(path, num_samples=0), json=json, render=_describe)


@app.command("inspect")
@command
def inspect(
    path: Annotated[Path, typer.Argument(help="A data set directory.")],
    samples: Annotated[int, typer.Option(help="Documents to show, decoded.")] = 3,
    verify: Annotated[bool, typer.Option("--verify", help="Check every byte against its hash.")] = False,
    json: Json = False,
) -> None:
    """Show documents, tokens, bytes per token, drops, lengths and some documents of a data set."""
    from data.inspect import inspect_dataset

    emit(inspect_dataset(path, num_samples=samples, verify=verify), json=json, render=_describe)


def _describe(report: dict[str, Any]) -> Any:
    from cluster.render import dataset_view

    return dataset_view(report)
