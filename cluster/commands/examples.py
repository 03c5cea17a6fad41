"""`seedbed data preview`, `judge` and `exercise`: examples, looked at and made."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.commands.options import (
    Answers,
    AnswerSeed,
    Combine,
    Json,
    MaxNewTokens,
    Prompts,
    PromptSplit,
    RewardRuns,
    Rules,
    RunOrStep,
    Temperature,
)
from cluster.output import command, emit
from seedbed.errors import UsageError

if TYPE_CHECKING:
    from training.rewards.judges import Judge


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
    """Show examples as they are trained on: tokens that are learned in colour and \u27e6brackets\u27e7."""
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
            if value["format"] == "feedback":
                rank = ", bad" if candidate["rank"] else ", good"
            if example["margin"]:
                rank += f", margin {example['margin']:g}"
            trained = sum(stop - start for start, stop in candidate["spans"])
            parts.append(
                Text(
                    f"\nexample {example['example']}{rank}: {trained} of {candidate['tokens']} tokens trained"
                )
            )
            text = Text()
            for piece in candidate["pieces"]:
                # Marks too, for where there are no colours.
                shown = f"\u27e6{piece['text']}\u27e7" if piece["trained"] else piece["text"]
                text.append(shown, style="bold green" if piece["trained"] else "dim")
            parts.append(text)
    return Group(*parts)


@command
def judge(
    run: RunOrStep,
    out: Annotated[Path, typer.Option("--out", help="JSONL to write.")] = Path("comparisons.jsonl"),
    data: Annotated[
        str, typer.Option("--data", help="A dataset whose prompts are answered. Default: the run's own.")
    ] = "",
    split: PromptSplit = "train",
    prompts: Prompts = 300,
    answers: Answers = 3,
    max_new_tokens: MaxNewTokens = 0,
    temperature: Temperature = 0.8,
    form: Annotated[
        str,
        typer.Option(
            "--as", help="preference: best and worst; ranking: all; best: the best, to fine-tune on."
        ),
    ] = "preference",
    at_least: Annotated[
        float | None, typer.Option("--at-least", help="Leave out prompts whose best answer scores less.")
    ] = None,
    reward: RewardRuns = None,
    combine: Combine = "mean",
    rule: Rules = None,
    by: Annotated[
        Path | None,
        typer.Option(
            "--judge", metavar="TOML", help="Judge by a language model: its url and model. Kept beside --out."
        ),
    ] = None,
    seed: AnswerSeed = 0,
    json: Json = False,
) -> None:
    """Sample answers of a run, and have a checker of Python, rules, reward models or a language model prefer
    some.

    The prompts must be of examples with the plain template, as sft-demo's are. The rows are to be trained on:
    --as best is best-of-n, and with --at-least rejection sampling.
    """
    from training.rewards.comparisons import Sampling, compare

    value = compare(
        run,
        out,
        Sampling(split, prompts, answers, temperature, seed, data, max_new_tokens),
        form=form,
        judge=judge_of(reward or [], combine, rule or [], by, out.with_name(f"{out.name}.verdicts")),
        at_least=at_least,
    )
    emit(value, json=json, render=_judged)


def judge_of(
    reward: list[Path], combine: str, rule: list[str], by: Path | None, verdicts: Path | None
) -> "Judge | None":
    """Rules, reward models, a language model whose verdicts stay in `verdicts`, or none: the checker of
    Python."""
    from training.rewards.judges import LanguageModel, RewardModels, Rules
    from training.rewards.scoring import RewardScorer
    from training.rl.llm_judge import LlmJudge, judge_config

    given = [name for name, value in (("--rule", rule), ("--reward", reward), ("--judge", by)) if value]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} each say who judges", "give one of them")
    if rule:
        return Rules(rule)
    if by:
        return LanguageModel(LlmJudge(judge_config(by), verdicts))
    return RewardModels(RewardScorer(reward, how=combine)) if reward else None


def _judged(value: dict[str, Any]) -> str:
    lines = [
        f"{value['rows']:,} rows of data.format = "
        f'"{"prompt-response" if value["form"] == "best" else value["form"]}" in {value["out"]}',
        f"left out: {value['left_out']:,} prompts without an answer that is good enough, or better than "
        f"another; {value['too_long']:,} longer than the context; {value['cut']:,} answers that did not end",
    ]
    if "parse" in value:
        lines.append(
            f"{value['judged']:,} answers that ended: {value['parse']:.3f} parse, "
            f"{value['uses_arguments']:.3f} use their arguments, {value['right_length']:.3f} right length; "
            f"score {value['score']:.2f} of 4"
        )
    elif "consistent" in value:
        lines.append(
            f"{value['judged']:,} comparisons: {value['consistent']:.3f} with one verdict in both orders, "
            f"{value['failed']:,} without any ({value['not_judged']:,} prompts)"
        )
        if value["agreement"] is not None:
            low, high = value["interval"]
            lines.append(
                f"agrees with the checker of Python: {value['agreement']:.3f} [{low:.3f}, {high:.3f}]"
            )
    elif "rules" in value:
        shares = ", ".join(f"{name} {share:.3f}" for name, share in value["rules"].items())
        lines.append(f"{value['judged']:,} answers that ended: {shares}")
    else:
        lines.append(
            f"{value['judged']:,} answers that ended: reward {value['score']:.3f}, deviation "
            f"{value['deviation']:.3f}"
        )
    return "\n".join(lines)


@command
def exercise(
    name: Annotated[str, typer.Argument(help="randomwalks, arithmetic or reasoning.")],
    out: Annotated[Path, typer.Option("--out", help="A new folder.")] = Path("exercise"),
    seed: Annotated[int, typer.Option(help="Rows are a function of it.")] = 0,
    json: Json = False,
) -> None:
    """Write a task whose best answers are known: rows to learn from first, and prompts to be answered."""
    from training.rl.exercises import write

    emit(
        write(name, out, seed),
        json=json,
        render=lambda value: (
            f"{value['out']}: {value['examples']:,} rows to fine-tune on (examples.jsonl), "
            f"{value['tasks']:,} prompts to answer (tasks.jsonl); reward: {value['reward']}"
        ),
    )
