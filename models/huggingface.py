"""Hugging Face folders of whatever family: `import_folder` and `export_folder`.

Decoders are in `models.hf`, encoders and T5 in `models.hf_encoders`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from models import hf, hf_encoders
from models.config import ModelConfig
from models.families import AnyModelConfig
from models.hf.files import read_config
from seedbed.errors import ConfigError, DataError


class ImportedModel(NamedTuple):
    """A model from a Hugging Face folder."""

    config: AnyModelConfig
    tensors: Iterator[tuple[str, Tensor]]
    """Canonical name and values, in the precision of the files, read as they are asked for."""
    notices: list[str]
    """What a user should know: what was not kept, not known, not run."""


def import_folder(folder: Path) -> ImportedModel:
    """Read a model; DataError names what is not supported, missing, extra, misshapen or does not fit."""
    model_type = str(read_config(folder).get("model_type"))
    if model_type in hf.FORMATS:
        return ImportedModel(*hf.import_model(folder))
    if model_type in hf_encoders.FORMATS:
        return ImportedModel(*hf_encoders.import_encoder(folder))
    raise DataError(
        f"{folder} holds a model of type {model_type!r}, which is not supported",
        f"supported: {', '.join([*hf.FORMATS, *hf_encoders.FORMATS])}",
    )


def export_folder(
    config: AnyModelConfig, tensors: Mapping[str, Tensor], folder: Path, settings: Mapping[str, Any]
) -> None:
    """Write a model as a new folder, with `settings` added to its config.json.

    ConfigError when its family has no architecture there that fits, DataError for tensors of another model.
    """
    if isinstance(config, ModelConfig):
        if config.head != "lm":
            raise ConfigError(
                f'a decoder with model.head = "{config.head}" has no architecture there that fits',
                "export the language model that it was trained from",
            )
        hf.export_model(config, tensors, folder, settings=settings)
    else:
        hf_encoders.export_encoder(config, tensors, folder, settings=settings)
