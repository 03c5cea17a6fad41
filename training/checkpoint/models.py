"""A trained model from a checkpoint, whole and on one device."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from data.tokenizers import find_tokenizer
from models.config import ModelConfig
from models.families import AnyModelConfig, build, parameter_shapes
from models.heads import RewardModel
from models.lora import merged
from models.transformer import Transformer
from seedbed.errors import CheckpointError, UsageError
from training.checkpoint.layout import resolve
from training.checkpoint.reader import Checkpoint
from training.config import Config
from training.recipes import make_config, parse_toml


@dataclass(frozen=True)
class LoadedModel:
    """A model in eval mode on the CPU (fp32), with what belongs to it."""

    model: nn.Module
    config: Config
    path: Path
    step: int
    tokenizer_path: Path
    dataset_path: Path
    dataset_digest: str

    def decoder(self) -> Transformer:
        """The model, if it writes text token after token; UsageError for another kind."""
        if not isinstance(self.model, Transformer) or isinstance(self.model, RewardModel):
            what = "reward model" if isinstance(self.model, RewardModel) else self.config.model.family
            raise UsageError(
                f"{self.path} holds a {what}, which does not write text token by token",
                "give the checkpoint of a decoder, such as a gpt2 or a llama",
            )
        return self.model


def model_config_of(path: Path) -> AnyModelConfig:
    """What a run's newest step, or a given step, is a model of."""
    return config_of(path).model


def config_of(path: Path) -> Config:
    """That of a run's newest step, or of a given step."""
    return _config(Checkpoint.open(resolve(path)))


def _config(checkpoint: Checkpoint) -> Config:
    text = checkpoint.read_file("config.toml").decode()
    return make_config(parse_toml(text, "config.toml"), str(checkpoint.path / "config.toml"))


def load_model(path: Path, *, ema: bool = False) -> LoadedModel:
    """Load a run's newest step, or a given step; every byte read is verified. Adapters are merged.

    With `ema`, the moving averages of its weights; UsageError without any. Raises CheckpointError when
    the step is damaged or its tensors are not those of its configuration.
    """
    checkpoint = Checkpoint.open(resolve(path))
    config = _config(checkpoint)
    tokenizer_path = find_tokenizer(checkpoint.path)
    checkpoint.read_file(tokenizer_path.name)
    shapes = parameter_shapes(config.model)
    extra = {name.removeprefix("model/") for name in checkpoint.names("model/")} - shapes.keys()
    if extra:
        raise CheckpointError(
            f"{checkpoint.path} has tensors that its model lacks: {', '.join(sorted(extra))}",
            "its config.toml is not the one that it was trained with: use another step",
        )
    prefix = checkpoint.weights(ema=ema)
    weights = {name: checkpoint.read(prefix + name, shape).float() for name, shape in shapes.items()}
    if isinstance(config.model, ModelConfig) and config.model.lora_rank:
        merged_config, weights = merged(config.model, weights)
        config = config.model_copy(update={"model": merged_config})
    with torch.device("meta"):
        model = build(config.model)
    model.load_state_dict(weights, assign=True)
    return LoadedModel(
        model.eval(),
        config,
        checkpoint.path,
        checkpoint.step,
        tokenizer_path,
        Path(config.data.path),
        str(checkpoint.manifest["dataset_digest"]),
    )
