"""Import and export of decoders: every tensor accounted for before the first one is read or written."""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor

from models.config import ModelConfig
from models.hf.deepseek import DEEPSEEK_V2
from models.hf.files import MAX_SHARD_BYTES, Weights, new_folder, read_config, write_config, write_weights
from models.hf.format import Format
from models.hf.gpt import GPT1, GPT2
from models.hf.llama import LLAMA, MISTRAL, QWEN2, QWEN3
from models.hf.mixtral import MIXTRAL
from models.hf.qwen_moe import QWEN2_MOE, QWEN3_MOE
from models.hf.rules import Rule, expand
from models.hf.settings import Settings
from models.sizes import parameter_shapes
from seedbed.errors import ConfigError, DataError

FORMATS = {
    one.model_type: one
    for one in (
        GPT1, GPT2, LLAMA, MISTRAL, MIXTRAL, QWEN2, QWEN3, QWEN2_MOE, QWEN3_MOE, DEEPSEEK_V2
    )
}  # fmt: skip


class Imported(NamedTuple):
    """A model from a Hugging Face folder."""

    config: ModelConfig
    tensors: Iterator[tuple[str, Tensor]]
    """Canonical name and values, in the precision of the files, read as they are asked for."""
    notices: list[str]
    """What a user should know: settings that are not taken over, code that was not run."""


def import_model(folder: Path) -> Imported:
    """Read a decoder of one of `FORMATS`.

    Raises DataError for a model type or setting that is not supported, for missing, extra or misshapen
    tensors, and for numbers that do not fit together. Code that a folder brings is never run.
    """
    values = read_config(folder)
    form = _format_of(values, folder)
    settings = Settings(values)
    config = _config(form, settings, folder)
    weights = Weights(folder)
    rules = expand(form.rules(config), config)
    names = _stored_names(form, rules, weights, config, folder)
    _check_shapes(rules, names, weights, config, folder)
    notices = list(settings.notices)
    if "auto_map" in values:
        notices.append("config.json names Python code of its own (auto_map); it was not run")
    unread = settings.unread()
    if unread:
        notices.append(f"keys of config.json that are not known here: {', '.join(unread)}")
    return Imported(config, _read(rules, names, weights, config), notices)


def export_model(
    config: ModelConfig,
    tensors: Mapping[str, Tensor],
    folder: Path,
    *,
    settings: Mapping[str, Any] | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write `config` and its tensors (by canonical name) as a new Hugging Face folder.

    `settings` are added to config.json: the ids of special tokens, for example. Raises ConfigError for a
    combination of parts that the architecture of its family lacks, DataError for missing, extra or misshapen
    tensors.
    """
    form = next(one for one in FORMATS.values() if one.family == config.family)
    refuse_inexpressible(form, config)
    shapes = parameter_shapes(config)
    _account(set(shapes), set(tensors), "the model")
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != shape:
            raise DataError(f"{name} has shape {list(tensors[name].shape)}, expected {list(shape)}")
    new_folder(folder)
    write_weights(folder, _write(expand(form.rules(config), config), tensors, config), max_shard_bytes)
    dtype = str(tensors["embedding.weight"].dtype).removeprefix("torch.")
    # Without these, readers would take the ids of the architecture's first release.
    unknown_ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    head = {"architectures": [form.architecture], "model_type": form.model_type, "torch_dtype": dtype}
    write_config(folder, {**head, **form.settings(config), **unknown_ids, **(settings or {})})


def _format_of(values: Mapping[str, Any], folder: Path) -> Format:
    model_type = values.get("model_type")
    named = values.get("architectures") or []
    form = FORMATS.get(str(model_type))
    if form is None:
        classes = f" ({', '.join(map(str, named))})" if named else ""
        raise DataError(
            f"{folder} holds a model of type {model_type!r}{classes}, which is not supported",
            f"supported: {', '.join(FORMATS)}",
        )
    stem = form.architecture.removesuffix("ForCausalLM").removesuffix("LMHeadModel")
    for name in named:
        if name not in (form.architecture, f"{stem}Model"):
            raise DataError(
                f"{folder} holds a {name}, which is not supported",
                f"supported: {form.architecture}, {stem}Model",
            )
    return form


def _config(form: Format, settings: Settings, folder: Path) -> ModelConfig:
    if settings.get("quantization_config", None) is not None:
        raise DataError(f"{folder} holds quantized weights", "give the folder of the full-precision model")
    try:
        return ModelConfig(family=form.family, **form.fields(settings))
    except ValidationError as error:
        problems = "; ".join(_problem(one) for one in error.errors())
    except (KeyError, TypeError) as error:
        problems = f"{error} is missing or of the wrong type"
    raise DataError(
        f"the settings of {folder / 'config.json'} do not fit together: {problems}",
        "give the folder as it was published",
    )


def _problem(problem: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"model.{where}: {message} (given: {problem['input']!r})" if where else message


def _stored_names(
    form: Format, rules: list[Rule], weights: Weights, config: ModelConfig, folder: Path
) -> dict[str, str]:
    """Name in the table -> name in the files; DataError when the two sets differ."""
    expected = [name for rule in rules for name in rule.theirs]
    bare = not any(name.startswith(form.prefix) for name in weights.shapes)
    names = {name: name.removeprefix(form.prefix) if bare else name for name in expected}
    found = {
        name for name in weights.shapes if not re.fullmatch(form.leftovers, _full(name, form, bare=bare))
    }
    if config.tie_embeddings and "lm_head.weight" in found:
        embedding = next(rule.theirs[0] for rule in rules if rule.ours == ("embedding.weight",))
        if names[embedding] in found and not torch.equal(
            weights.read("lm_head.weight"), weights.read(names[embedding])
        ):
            raise DataError(
                f"{folder} says that head and embedding are one, and stores two that differ",
                "set tie_word_embeddings to false in config.json if they are meant to differ",
            )
        found.remove("lm_head.weight")
    _account(set(names.values()), found, str(folder))
    return names


def _full(name: str, form: Format, *, bare: bool) -> str:
    return form.prefix + name if bare else name


def _account(expected: set[str], found: set[str], where: str) -> None:
    missing, extra = sorted(expected - found), sorted(found - expected)
    parts = [
        f"{what} {', '.join(names[:5])}" + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        for what, names in (("missing:", missing), ("unexpected:", extra))
        if names
    ]
    if parts:
        raise DataError(
            f"{where} does not hold the tensors of its configuration; {'; '.join(parts)}",
            "config.json and the weights must be of the same model, and complete",
        )


def _check_shapes(
    rules: list[Rule], names: Mapping[str, str], weights: Weights, config: ModelConfig, folder: Path
) -> None:
    """Turn tensors without values by the rules, and compare what comes out."""
    shapes = parameter_shapes(config)
    for theirs, ours, transform in rules:
        stored = [weights.shapes[names[name]] for name in theirs]
        try:
            turned = transform.to_ours([torch.empty(shape, device="meta") for shape in stored], config)
            got = [tuple(tensor.shape) for tensor in turned]
        except (RuntimeError, IndexError):
            got = []
        if got != [shapes[name] for name in ours]:
            raise DataError(
                f"{folder}: {', '.join(names[name] for name in theirs)} of shape "
                f"{', '.join(str(list(shape)) for shape in stored)} cannot be {', '.join(ours)} of shape "
                f"{', '.join(str(list(shapes[name])) for name in ours)}",
                "config.json and the weights must be of the same model",
            )


def _read(
    rules: list[Rule], names: Mapping[str, str], weights: Weights, config: ModelConfig
) -> Iterator[tuple[str, Tensor]]:
    for theirs, ours, transform in rules:
        turned = transform.to_ours([weights.read(names[name]) for name in theirs], config)
        yield from ((name, tensor.contiguous()) for name, tensor in zip(ours, turned, strict=True))


def _write(
    rules: list[Rule], tensors: Mapping[str, Tensor], config: ModelConfig
) -> Iterator[tuple[str, Tensor]]:
    for theirs, ours, transform in rules:
        yield from zip(
            theirs, transform.to_theirs([tensors[name].detach() for name in ours], config), strict=True
        )


def refuse_inexpressible(form: Format, config: ModelConfig) -> None:
    """What a config.json says must be read back as the same model."""
    again = ModelConfig(family=form.family, **form.fields(Settings(form.settings(config))))
    read = _resolved(again)
    wrong = [
        f"model.{name} = {value!r}"
        for name, value in _resolved(config).items()
        if not (math.isclose(read[name], value) if isinstance(value, float) else read[name] == value)
    ]
    if wrong:
        raise ConfigError(
            f"{form.architecture} cannot hold {', '.join(wrong)}",
            "export a model that keeps to the parts of its family",
        )


def _resolved(config: ModelConfig) -> dict[str, Any]:
    """The fields that the computation depends on, with each 0 that stands for a number resolved."""
    has_dense = not all(config.has_experts(layer) for layer in range(config.num_layers))
    resolved = {
        "num_kv_heads": config.kv_heads,
        "head_width": config.head_size,
        "value_width": config.value_size,
        "rope_stretch": config.rotary_stretch,
        "mlp_width": config.hidden_width if has_dense else config.expert_hidden_width,
        "expert_width": config.expert_hidden_width,
    }
    return {**config.model_dump(exclude={"dropout", "drop_path", "initialization"}), **resolved}
