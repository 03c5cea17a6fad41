"""Between Hugging Face folders and checkpoints: `import_checkpoint` and `export_checkpoint`.

An imported folder becomes a directory with one step, which `generate`, `eval --data` and `--init-from` take
like any other. Tensors keep the precision and the bits of the files, both ways.
"""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from data.tokenizers import Tokenizer, find_tokenizer, load_tokenizer
from models.config import ModelConfig
from models.hf.adapter import export_adapter
from models.hf.files import read_config
from models.huggingface import export_folder, import_folder
from models.lora import merged
from seedbed.errors import CheckpointError, ConfigError, DataError, UsageError
from training.checkpoint.layout import LABELS, resolve
from training.checkpoint.reader import Checkpoint
from training.checkpoint.writer import Saver, SaveResult, library_versions
from training.config import Config, config_hash
from training.engines.base import Shard
from training.recipes import make_config, parse_toml, to_toml

# What goes with a tokenizer in a Hugging Face folder, chat template included, and is carried along.
COMPANIONS = ("tokenizer_config.json", "chat_template.jinja", "generation_config.json")


def import_checkpoint(folder: Path, out: Path) -> tuple[Path, list[str]]:
    """Write the model and tokenizer of a Hugging Face `folder` as the checkpoint OUT/checkpoints/step-0.

    Returns its path, and notices of what was not taken over. DataError when the folder cannot be imported,
    UsageError when `out` is in use.
    """
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty", "choose another directory")
    imported = import_folder(folder)
    file = find_tokenizer(folder)
    tokenizer = load_tokenizer(file)
    if tokenizer.vocab_size > imported.config.vocab_size:
        raise DataError(
            f"{file} has {tokenizer.vocab_size:,} tokens, and the model {imported.config.vocab_size:,}",
            "give the tokenizer that belongs to the model",
        )
    _refuse_unknown_tokens(folder, tokenizer)
    config = Config(model=imported.config)
    attachments = {"config.toml": to_toml(config).encode(), tokenizer.file_name: tokenizer.to_bytes()}
    attachments |= {name: (folder / name).read_bytes() for name in COMPANIONS if (folder / name).is_file()}
    if labels := _labels(folder):
        attachments[LABELS] = json.dumps(labels).encode()
    failures: list[str] = []

    def done(result: SaveResult) -> None:
        failures.extend([result.error] if result.error else [])

    saver = Saver(out, 0, 1, "import", attachments, done)
    shards = (
        Shard(f"model/{name}", values, tuple(values.shape), (0,) * values.dim())
        for name, values in imported.tensors
    )
    saver.save(shards, _manifest(config, tokenizer, folder))
    saver.wait()
    if failures:
        raise CheckpointError(
            f"cannot write {out}: {failures[0]}", "make room there, or choose another directory"
        )
    return resolve(out), imported.notices


def _refuse_unknown_tokens(folder: Path, tokenizer: Tokenizer) -> None:
    """Raises DataError for special tokens that tokenizer_config.json names and the vocabulary lacks.

    Readers of Hugging Face folders give them ids of their own, which the embedding may have no rows for.
    """
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return
    try:
        named = json.loads(path.read_text(encoding="utf-8"))
        tokens = {key: value for key, value in named.items() if key.endswith("_token")}
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is not a JSON object: {error}", "copy the folder again") from error
    for key, value in tokens.items():
        token = value.get("content") if isinstance(value, dict) else value
        if isinstance(token, str) and token not in tokenizer:
            raise DataError(
                f"{path} names {token!r} as its {key}, which is not in the vocabulary",
                "give the tokenizer that belongs to the model, or take the line out",
            )


def _labels(folder: Path) -> list[str]:
    """The names that config.json gives to the labels of a classifier, in order; none without names."""
    named = read_config(folder).get("id2label") or {}
    ordered = [str(named[number]) for number in sorted(named, key=int)]
    return [] if ordered == [f"LABEL_{number}" for number in range(len(ordered))] else ordered


def _manifest(config: Config, tokenizer: Tokenizer, folder: Path) -> dict[str, Any]:
    return {
        "step": 0,
        "position": 0,
        "attempt": 0,
        "world": {"engine": "import", "num_ranks": 1, "library_versions": library_versions()},
        "config_hash": config_hash(config),
        "identity_hash": None,
        "dataset_digest": "",
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "trainer": {"best": None, "imported_from": folder.name},
    }


def export_checkpoint(path: Path, out: Path, *, ema: bool = False, adapter: bool = False) -> Path:
    """Write the newest step of a run, or a given step, as the new Hugging Face folder `out`.

    With `ema`, the moving averages of its weights. Adapters are merged, or with `adapter` written alone, as
    `peft` reads them. Every byte read is verified. UsageError without averages; ConfigError when its family
    has no architecture there that fits.
    """
    checkpoint = Checkpoint.open(resolve(path))
    text = checkpoint.read_file("config.toml").decode()
    config = make_config(parse_toml(text, "config.toml"), str(checkpoint.path / "config.toml"))
    tensors = {}
    prefix = checkpoint.weights(ema=ema)
    for name in checkpoint.names(prefix):
        shape = tuple(checkpoint.manifest["tensors"][name]["shape"])
        tensors[name.removeprefix(prefix)] = checkpoint.read(name, shape)
    file = find_tokenizer(checkpoint.path)
    content = checkpoint.read_file(file.name)
    tokenizer = load_tokenizer(file, content=content)
    settings: dict[str, Any] = {}
    if isinstance(config.model, ModelConfig):
        settings = dict.fromkeys(("bos_token_id", "eos_token_id"), tokenizer.end_of_text_id)
    if checkpoint.has_file(LABELS):
        labels = json.loads(checkpoint.read_file(LABELS))
        settings["id2label"] = {str(number): label for number, label in enumerate(labels)}
        settings["label2id"] = {label: number for number, label in enumerate(labels)}
    model = config.model
    if adapter:
        if not find_spec("peft"):
            raise UsageError("--adapter needs the package peft", "pip install 'seedbed[lora]'")
        if not isinstance(model, ModelConfig):
            raise ConfigError(f"a {model.family} has no adapters", "leave out --adapter")
        export_adapter(model, tensors, out, base="")
    else:
        if isinstance(model, ModelConfig):
            model, tensors = merged(model, tensors)
        export_folder(model, tensors, out, settings)
    (out / file.name).write_bytes(content)
    for name in COMPANIONS:
        if (checkpoint.path / name).is_file():
            (out / name).write_bytes(checkpoint.read_file(name))
    return out
