"""`seedbed data preview` and `seedbed data judge`: examples, looked at and made."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.commands.options import Json, RunOrStep
from cluster.output import command, emit


@command
def preview(
    path: Annotated[str, typer.Argument(help="A dataset of examples, or its URL.")],
    split: Annotated[str, typer.Option(help="train or holdout.")] = "train",
    count: Annotated[int, typer.Option(min=1, help="Examples to show.")] = 3,
    first: Annotated[
        int | None, typer.Option(min=0, help="From this number on; else chosen by hash.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Show examples as they are trained on: the tokens that are learned coloured, the others plain."""
    from data.examples.preview import preview

    emit(preview(path, split, count, first), json=json, render=_shown)


def _shown(value: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.text import Text

    counts = value["counts"].get(value["split"], {})
    about = f"{value['path']}, {value['split']}: {value['format']} by the template {value['template']}"
    parts: list[Any] = [Text(f"{about}; " + ", ".join(f"{n:,} {name}" for name, n in counts.items()))]
    if value["drops"]:
        parts.append(
            Text("not taken: " + ", ".join(f"{n:,} {reason}" for reason, n in value["drops"].items()))
        )
    for example in value["examples"]:
        several = len(example["candidates"]) > 1
        for candidate in example["candidates"]:
            rank = f", rank {candidate['rank']}" if several else ""
            trained = sum(stop - start for start, stop in candidate["spans"])
            parts.append(
                Text(
                    f"\nexample {example['example']}{rank}: {trained} of {candidate['tokens']} tokens trained"
                )
            )
            text = Text()
            for piece in candidate["pieces"]:
                text.append(piece["text"], style="bold green" if piece["trained"] else "dim")
            parts.append(text)
    return Group(*parts)


@command
def judge(
    run: RunOrStep,
    out: Annotated[Path, typer.Option("--out", help="JSONL to write.")] = Path("comparisons.jsonl"),
    split: Annotated[str, typer.Option(help="Whose prompts: train or holdout.")] = "train",
    prompts: Annotated[int, typer.Option(min=1, help="Prompts to answer.")] = 300,
    answers: Annotated[int, typer.Option(min=2, help="Answers to each.")] = 3,
    temperature: Annotated[float, typer.Option(min=0, help="How answers are sampled.")] = 0.8,
    form: Annotated[
        str, typer.Option("--as", help="preference: best and worst; ranking: all.")
    ] = "preference",
    seed: Annotated[int, typer.Option(help="Answers are a function of it.")] = 0,
    json: Json = False,
) -> None:
    """Sample answers of a run of sft-demo, and have a checker of Python prefer some to others."""
    from training.rewards.comparisons import compare

    value = compare(
        run,
        out,
        split=split,
        num_prompts=prompts,
        num_answers=answers,
        temperature=temperature,
        form=form,
        seed=seed,
    )
    emit(value, json=json, render=_judged)


def _judged(value: dict[str, Any]) -> str:
    shares = ", ".join(f"{value[name]:.3f} {name.replace('_', ' ')}" for name in ("parse", "uses_arguments"))
    return (
        f"{value['rows']:,} comparisons in {value['out']}\n"
        f"left out: {value['alike']:,} prompts whose answers are as good as each other, "
        f"{value['too_long']:,} longer than the context\n"
        f"{value['answers']:,} answers: {shares}, {value['right_length']:.3f} right length; "
        f"score {value['score']:.2f} of 4"
    )
