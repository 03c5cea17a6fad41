"""`seedbed generate` and `seedbed eval`."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.commands.options import Json, RunOrStep
from cluster.output import command, emit
from seedbed.errors import UsageError


@command
def generate(
    checkpoint: RunOrStep,
    prompt: Annotated[
        str, typer.Option("--prompt", help="Text to continue; empty starts a new document.")
    ] = "",
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1)] = 200,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.8,
    top_k: Annotated[int, typer.Option(help="Keep the k likeliest tokens; 0 keeps all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Keep the likeliest tokens up to this mass.")] = 0.95,
    seed: Annotated[int, typer.Option(help="Another seed, another text.")] = 0,
    json: Json = False,
) -> None:
    """Continue a text with a trained model, streaming."""
    from data.tokenizers import load_tokenizer
    from models.generation import SamplingOptions
    from models.generation import generate as sample
    from training.checkpoint.models import load_model

    options = SamplingOptions(temperature, top_k, top_p)
    loaded = load_model(checkpoint)
    tokenizer = load_tokenizer(loaded.tokenizer_path)
    tokens = tokenizer.encode(prompt) or [tokenizer.end_of_text_id]
    made: list[int] = []
    shown = 0
    if not json:
        sys.stdout.write(prompt)
    for token in sample(
        loaded.model,
        tokens,
        max_new_tokens=max_tokens,
        options=options,
        seed=seed,
        stop_id=tokenizer.end_of_text_id,
    ):
        made.append(token)
        # A token may end inside a character: what is shown waits for the rest of it.
        text = tokenizer.decode(made).rstrip("\ufffd")
        if not json:
            sys.stdout.write(text[shown:])
            sys.stdout.flush()
        shown = len(text)
    value = {
        "checkpoint": str(loaded.path),
        "step": loaded.step,
        "prompt": prompt,
        "text": tokenizer.decode(made),
        "tokens": made,
        "stopped_by": "end_of_text"
        if len(made) < max_tokens and len(made) + len(tokens) < loaded.config.model.context
        else "length",
    }
    emit(value, json=json, render=lambda _: "")


@command
def evaluate(
    checkpoint: RunOrStep,
    tasks: Annotated[str, typer.Option("--tasks", help="Tasks, separated by commas.")] = "bits-per-byte",
    data: Annotated[
        Path | None,
        typer.Option("--data", help="A data set (its held-out split) or raw text. Default: the run's own."),
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Also gzip, xz and an n-gram model on the same bytes.")
    ] = False,
    json: Json = False,
) -> None:
    """Score a checkpoint, with intervals."""
    from cluster.render import eval_view
    from evals.results import evaluate as score

    names = [name.strip() for name in tasks.split(",") if name.strip()]
    if not names:
        raise UsageError("--tasks names no task", "for example --tasks bits-per-byte")
    value: dict[str, Any] = score(checkpoint, tasks=names, data=data, with_baselines=baselines)
    emit(value, json=json, render=eval_view)
