"""`seedbed eval`, `seedbed contest` and `seedbed probe`: scores, preferences, what an encoder knows."""

import re
from pathlib import Path
from typing import Annotated, Any

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

Members = Annotated[
    list[Path] | None,
    typer.Option("--member", metavar="RUN", help="Of a reward model: one more of an ensemble. Repeatable."),
]
NumFewshot = Annotated[
    int | None,
    typer.Option("--num-fewshot", min=0, help="Examples before each question. Default: the task's own."),
]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="Only the first so many items of each task.")
]
BatchSize = Annotated[
    int | None,
    typer.Option("--batch-size", min=1, help="Texts that are worked on at a time; changes no score."),
]
Memory = Annotated[
    str,
    typer.Option(
        help="Of a model larger than a device: 0=20GB,cpu=60GB fills these with its blocks, first to last; "
        "the others are on disk."
    ),
]
Perturb = Annotated[
    str,
    typer.Option(help="Ask under changes, too: typos, case, space, template, names of some, or all."),
]
Contamination = Annotated[
    bool, typer.Option("--contamination", help="Look for the items in what the run was trained on.")
]
Unseen = Annotated[
    bool, typer.Option("--unseen", help="Items of sources that the run was not trained on, told apart.")
]
AllSteps = Annotated[bool, typer.Option("--all-steps", help="Each step that the run keeps.")]


@command
def evaluate(
    checkpoint: RunOrStep,
    tasks: Annotated[
        str, typer.Option("--tasks", help="Tasks, separated by commas: names, or .toml files.")
    ] = "bits-per-byte",
    data: Annotated[
        Path | None,
        typer.Option("--data", help="A data set (its held-out split) or raw text. Default: the run's own."),
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Also gzip, xz and an n-gram model on the same bytes.")
    ] = False,
    members: Members = None,
    combine: Combine = "mean",
    num_fewshot: NumFewshot = None,
    limit: Limit = None,
    batch_size: BatchSize = None,
    ranks: Annotated[
        int, typer.Option("--ranks", min=1, help="Processes that share the items; changes no score.")
    ] = 1,
    memory: Memory = "",
    perturb: Perturb = "",
    contamination: Contamination = False,
    unseen: Unseen = False,
    other: Annotated[
        Path | None,
        typer.Option("--compare", metavar="RUN", help="Whether it is better than this one, item by item."),
    ] = None,
    all_steps: AllSteps = False,
    json: Json = False,
) -> None:
    """Score a checkpoint, with intervals: of a run, or a folder of transformers."""
    from cluster.render import eval_view
    from evals.results import evaluate_any

    names = _names(tasks)
    if not names:
        raise UsageError("--tasks names no task", "for example --tasks bits-per-byte")
    how: dict[str, Any] = {
        "data": data,
        "with_baselines": baselines,
        "members": members or (),
        "combine": combine,
        "num_fewshot": num_fewshot,
        "limit": limit,
        "batch_size": batch_size,
        "ranks": ranks,
        "memory": _memory(memory),
        "perturb": _names(perturb),
        "contamination": contamination,
        "unseen": unseen,
    }
    value = evaluate_any(checkpoint, names, other, all_steps=all_steps, **how)
    emit(value, json=json, render=eval_view)


def _memory(text: str) -> dict[str | int, int]:
    """Bytes by place, of "0=20GB,cpu=60GB"."""
    found: dict[str | int, int] = {}
    for part in _names(text):
        parsed = re.fullmatch(r"(cpu|\d+)=(\d+(?:\.\d+)?)([KMGT]?)B", part)
        if not parsed:
            raise UsageError(
                f"--memory {text}: {part!r} is no place with its memory", "such as 0=20GB,cpu=60GB"
            )
        place, amount, unit = parsed.groups()
        if place in map(str, found):
            raise UsageError(f"--memory {text}: {place} stands there twice", "give each place once")
        size = float(amount) * 1000 ** " KMGT".index(unit or " ")
        found[int(place) if place.isdecimal() else place] = int(size)
    return found


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


@command
def contest(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Two runs or steps, or more; one with --reference."),
    ],
    data: Annotated[
        str,
        typer.Option("--data", help="A dataset whose prompts are answered. Default: the first run's."),
    ] = "",
    split: PromptSplit = "holdout",
    prompts: Prompts = 100,
    answers: Answers = 1,
    max_new_tokens: MaxNewTokens = 0,
    temperature: Temperature = 0.8,
    reward: RewardRuns = None,
    combine: Combine = "mean",
    rule: Rules = None,
    by: Annotated[
        Path | None,
        typer.Option("--judge", metavar="TOML", help="Judge by a language model, in both orders."),
    ] = None,
    likert: Annotated[
        bool, typer.Option("--likert", help="Have the language model rate each answer, too, from 1 to 5.")
    ] = False,
    reference: Annotated[
        bool, typer.Option("--reference", help="The answers that the data have take part, too.")
    ] = False,
    verdicts: Annotated[
        Path | None, typer.Option("--verdicts", help="Where a language model's verdicts are kept.")
    ] = None,
    seed: AnswerSeed = 0,
    json: Json = False,
) -> None:
    """Compare checkpoints by whose answers are preferred: shares of wins, and ratings, with intervals.

    Without a judge the checker of Python says which is better. Prompts are those of examples with the plain
    template.
    """
    from cluster.commands.examples import judge_of
    from cluster.render import contest_view
    from evals.contest import contest as compare
    from training.rewards.comparisons import Sampling

    if verdicts and not by:
        raise UsageError("--verdicts keeps what a language model says", "give a --judge, or leave it out")
    sampling = Sampling(split, prompts, answers, temperature, seed, data, max_new_tokens)
    judge = judge_of(reward or [], combine, rule or [], by, verdicts)
    value = compare(runs, sampling, judge, with_likert=likert, with_reference=reference)
    emit(value, json=json, render=contest_view)


@command
def probe(
    checkpoint: RunOrStep,
    tasks: Annotated[
        str, typer.Option("--tasks", help="Probes, separated by commas, or all of them.")
    ] = "package,next-sentence,names,docstring",
    train: Annotated[
        Path | None, typer.Option("--train", help="JSON Lines to learn from, in place of --tasks.")
    ] = None,
    test: Annotated[
        Path | None, typer.Option("--test", help="JSON Lines to be scored on, with --train.")
    ] = None,
    mode: Annotated[
        str, typer.Option("--mode", help="linear (the encoder is held still), tuned (it learns), or both.")
    ] = "both",
    seeds: Annotated[int, typer.Option("--seeds", min=2, help="Heads of each kind.")] = 5,
    steps: Annotated[int, typer.Option("--steps", min=1, help="That each of them learns.")] = 200,
    other: Annotated[
        Path | None, typer.Option("--compare", metavar="RUN", help="Whether it knows more than this one.")
    ] = None,
    json: Json = False,
) -> None:
    """Train heads on an encoder, held still and fine-tuned, and score them with intervals.

    They learn from texts that the run was trained on, and are scored on texts that it held out.
    """
    from cluster.render import probe_view
    from evals.probes.fitting import Fit
    from evals.probes.results import MODES
    from evals.probes.results import probe as run

    if (train is None) != (test is None):
        raise UsageError("--train and --test go together", "name both, or neither")
    modes = [one for one in MODES if mode in (one, "both")]
    if not modes:
        raise UsageError(f"--mode {mode} is none", f"there are {', '.join(MODES)} and both")
    names, files = _names(tasks), {}
    if train and test:
        names = [train.stem]
        files = {train.stem: (train, test)}
    how = Fit(steps=steps)
    value = run(checkpoint, names, other=other, files=files, modes=modes, num_seeds=seeds, how=how)
    emit(value, json=json, render=probe_view)
