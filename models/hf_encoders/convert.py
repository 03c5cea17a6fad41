"""Import and export of encoders: every tensor accounted for before the first is read or written."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor

from models.hf.files import MAX_SHARD_BYTES, Weights, new_folder, read_config, write_config, write_weights
from models.hf.settings import Settings
from models.hf_encoders.bert import FORMATS as BERT_FORMATS
from models.hf_encoders.format import Format
from models.hf_encoders.t5 import T5Format
from seedbed.errors import ConfigError, DataError

FORMATS: dict[str, Format] = {**BERT_FORMATS, "t5": T5Format()}
NUM_NAMES_SHOWN = 10


class Imported(NamedTuple):
    """A model from a Hugging Face folder."""

    config: Any
    """An EncoderConfig or a T5Config."""
    tensors: Iterator[tuple[str, Tensor]]
    """Canonical name and values, in the precision of the files, read as they are asked for."""
    notices: list[str]
    """What a user should know: tensors that are not kept, keys that are not known, code that was not run."""


def supported_architectures() -> tuple[str, ...]:
    """Classes that `import_encoder` reads."""
    return tuple(name for form in FORMATS.values() for name in form.architectures)


def import_encoder(folder: Path) -> Imported:
    """Read an encoder or a T5.

    Raises DataError for an architecture or setting that is not supported, for missing, extra or misshapen
    tensors, and for numbers that do not fit together. Code that a folder brings is never run.
    """
    values = read_config(folder)
    form = _format(values, folder)
    settings, weights = Settings(values), Weights(folder)
    # Name as it is today -> name in the files.
    stored = {_modern(name): name for name in weights.shapes}
    config = _config(form, settings, stored.keys(), folder)
    names = form.names(config)
    left_out = _account(form, config, weights, stored, folder)
    _check_copies(form, config, weights, stored, left_out)
    notices = (
        [_listed("not kept, since they repeat others or nothing reads them", left_out)] if left_out else []
    )
    if "auto_map" in values:
        notices.append("config.json names Python code of its own (auto_map); it was not run")
    if unread := settings.unread():
        notices.append(_listed("keys of config.json that are not known here", unread))
    tensors = ((ours, weights.read(stored[theirs])) for ours, theirs in names.items())
    return Imported(config, tensors, notices)


def export_encoder(
    config: Any,
    tensors: Mapping[str, Tensor],
    folder: Path,
    *,
    settings: Mapping[str, Any] | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write `config` and its tensors (by canonical name) as a new Hugging Face folder.

    `settings` are added to config.json: the ids of special tokens, for example. Raises ConfigError for what
    no class of the format computes, DataError for missing, extra or misshapen tensors.
    """
    form = FORMATS["t5" if config.family.startswith("t5") else config.family]
    written, shapes, names = form.write(config), form.shapes(config), form.names(config)
    _refuse_inexpressible(form, config, written)
    misshapen = [name for name in shapes if name in tensors and tuple(tensors[name].shape) != shapes[name]]
    problems = [
        _listed("missing", sorted(shapes.keys() - tensors.keys())),
        _listed("not of this model", sorted(tensors.keys() - shapes.keys())),
        _listed("of another shape", misshapen),
    ]
    if any(problems):
        told = "; ".join(filter(None, problems))
        raise DataError(f"these tensors are not those of the configuration: {told}")
    new_folder(folder)
    write_weights(folder, ((theirs, tensors[ours]) for ours, theirs in names.items()), max_shard_bytes)
    dtype = str(tensors["embedding.weight"].dtype).removeprefix("torch.")
    write_config(folder, {**written, "torch_dtype": dtype, **(settings or {})})


def _format(values: Mapping[str, Any], folder: Path) -> Format:
    """The format of a config.json; DataError for an architecture that is not supported."""
    given = values.get("architectures") or ["(none named)"]
    form = FORMATS.get(str(values.get("model_type")))
    if form is None or len(given) != 1 or given[0] not in form.architectures:
        raise DataError(
            f"{folder} holds a {', '.join(map(str, given))} of the type {values.get('model_type')!r}, "
            "which is not supported",
            f"supported: {', '.join(supported_architectures())}",
        )
    if values.get("quantization_config") is not None:
        raise DataError(f"{folder} holds quantized weights", "give the folder of the full-precision model")
    return form


def _config(form: Format, settings: Settings, names: Any, folder: Path) -> Any:
    try:
        return form.read(settings, names)
    except ValidationError as error:
        told = "; ".join(
            ".".join(["model", *map(str, problem["loc"])])
            + f": {problem['msg']} (given: {problem['input']!r})"
            if problem["loc"]
            else str(problem["msg"]).removeprefix("Value error, ")
            for problem in error.errors()
        )
        raise DataError(
            f"the numbers of {folder / 'config.json'} do not fit together: {told}",
            "give the folder as it was published",
        ) from None


def _account(
    form: Format, config: Any, weights: Weights, stored: Mapping[str, str], folder: Path
) -> list[str]:
    """Names that are not kept; DataError for tensors that are missing, unknown or of another shape."""
    names, shapes = form.names(config), form.shapes(config)
    others = stored.keys() - set(names.values())
    copies = form.copies(config)
    left_out = sorted(
        name
        for name in others
        if name in copies or any(re.fullmatch(pattern, name) for pattern in form.leftovers)
    )
    misshapen = [
        f"{theirs} {weights.shapes[stored[theirs]]} for {shapes[ours]}"
        for ours, theirs in names.items()
        if theirs in stored and weights.shapes[stored[theirs]] != shapes[ours]
    ]
    problems = [
        _listed("missing", sorted(set(names.values()) - stored.keys())),
        _listed("not of this architecture", sorted(others - set(left_out))),
        _listed("of another shape than config.json says", misshapen),
    ]
    if any(problems):
        raise DataError(
            f"the tensors in {folder} are not those of its config.json: {'; '.join(filter(None, problems))}",
            "give the folder as it was published",
        )
    return left_out


def _check_copies(
    form: Format, config: Any, weights: Weights, stored: Mapping[str, str], left_out: list[str]
) -> None:
    """DataError when what a file repeats is not a copy."""
    names, copies = form.names(config), form.copies(config)
    untied = [
        name
        for name in left_out
        if name in copies
        and not torch.equal(weights.read(stored[name]), weights.read(stored[names[copies[name]]]))
    ]
    if untied:
        raise DataError(
            _listed("untied, though this architecture ties them", untied),
            "a model whose output matrix is not its embedding is not supported here",
        )


def _refuse_inexpressible(form: Format, config: Any, written: Mapping[str, Any]) -> None:
    """What would be read back must be what is written: the format has no place for some combinations."""
    names, shapes = form.names(config), form.shapes(config)
    again = form.read(Settings(written), set(names.values()))
    before, after = form.resolved(config), form.resolved(again)
    lost = [
        f"model.{field} = {value!r} (it would become {after[field]!r})"
        for field, value in before.items()
        # How the first weights were drawn is no part of the model.
        if field != "initialization" and value != after[field]
    ]
    if lost or form.shapes(again) != shapes or names.keys() != shapes.keys():
        raise ConfigError(
            f"{written['architectures'][0]} of Hugging Face cannot express "
            + (", ".join(lost) or "parameters of these names and shapes"),
            "only the parts of the published family can be exported",
        )


def _modern(name: str) -> str:
    """Files converted from TensorFlow call a LayerNorm's gain gamma and its bias beta."""
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
    return re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)


def _listed(what: str, names: list[str]) -> str:
    """`what: a, b, ...`, or nothing when there are none."""
    if not names:
        return ""
    more = f" and {len(names) - NUM_NAMES_SHOWN} more" if len(names) > NUM_NAMES_SHOWN else ""
    return f"{what}: {', '.join(names[:NUM_NAMES_SHOWN])}{more}"
