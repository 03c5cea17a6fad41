"""`seedbed import` and `seedbed export`: models from and to Hugging Face folders."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.commands.options import Json, RunOrStep
from cluster.output import command, emit, note


@command
def import_(
    folder: Annotated[Path, typer.Argument(metavar="HF_DIR", help="A folder with config.json and weights.")],
    out: Annotated[Path, typer.Argument(help="Directory to write; must not hold anything yet.")],
    json: Json = False,
) -> None:
    """Make a checkpoint of a Hugging Face folder: config, safetensors and tokenizer.

    GPT, GPT-2, Llama, Mistral, Mixtral, Qwen 2 and 3, DeepSeek-V2, BERT, RoBERTa, ALBERT, DistilBERT, T5.
    Code in the folder is never run. Train on with --init-from OUT, or sample with `seedbed generate OUT`.
    """
    from training.checkpoint.exchange import import_checkpoint

    path, notices = import_checkpoint(folder, out)
    for notice in notices:
        note(f"notice: {notice}")
    emit({"checkpoint": str(path), "notices": notices}, json=json, render=lambda v: v["checkpoint"])


@command
def export(
    checkpoint: RunOrStep,
    out: Annotated[Path, typer.Argument(help="Folder to write; must not hold anything yet.")],
    ema: Annotated[bool, typer.Option("--ema", help="The moving averages of its weights.")] = False,
    adapter: Annotated[
        bool, typer.Option("--adapter", help="Its low-rank adapters alone, for peft.")
    ] = False,
    json: Json = False,
) -> None:
    """Write a checkpoint as a Hugging Face folder: config, safetensors, tokenizer, chat template.

    Low-rank adapters are merged into the weights.
    """
    from training.checkpoint.exchange import export_checkpoint

    path = export_checkpoint(checkpoint, out, ema=ema, adapter=adapter)
    emit({"folder": str(path)}, json=json, render=lambda v: v["folder"])
