"""Every family of models behind one set of functions: which one is meant, the configuration's type says.

    decoders           models.config      ModelConfig      gpt2, llama, mixtral, ...
    encoders           models.bert        EncoderConfig    bert, roberta, albert, distilbert
    encoder-decoders   models.t5          T5Config         t5, t5_v1_1

Whoever trains, plans, stores or loads a model goes through here and need not know which it is. Only `build`
imports torch.
"""

import re
from typing import TYPE_CHECKING, Annotated, Any, get_args

import numpy as np
from pydantic import BaseModel, Discriminator, Tag

import models.accounting
import models.bert.accounting
import models.bert.initialization
import models.bert.sizes
import models.initialization
import models.mup
import models.sizes
import models.t5.accounting
import models.t5.initialization
import models.t5.sizes
from models.accounting import ActivationMemory
from models.bert.config import EncoderConfig
from models.config import ModelConfig
from models.sizes import Flops, ParameterCount, Shapes
from models.t5.config import T5Config

if TYPE_CHECKING:
    from torch import nn

CONFIGS: dict[str, type[BaseModel]] = {"decoder": ModelConfig, "encoder": EncoderConfig, "t5": T5Config}
"""What kinds of models there are."""
FAMILIES: dict[str, str] = {
    family: kind
    for kind, config in CONFIGS.items()
    for family in get_args(config.model_fields["family"].annotation)
}
"""Family -> kind."""
DEFAULT_FAMILY: str = ModelConfig.model_fields["family"].default


def kind_of(model: Any) -> str | None:
    """Of a configuration, or of the table of one; None for a family that does not exist."""
    if isinstance(model, dict):
        return FAMILIES.get(str(model.get("family", DEFAULT_FAMILY)))
    return FAMILIES.get(str(getattr(model, "family", None)))


AnyModelConfig = Annotated[
    Annotated[ModelConfig, Tag("decoder")]
    | Annotated[EncoderConfig, Tag("encoder")]
    | Annotated[T5Config, Tag("t5")],
    Discriminator(kind_of),
]
"""The `[model]` section of a configuration: `family` decides which fields there are."""

_SIZES: dict[str, Any] = {"decoder": models.sizes, "encoder": models.bert.sizes, "t5": models.t5.sizes}
_ACCOUNTING: dict[str, Any] = {
    "decoder": models.accounting,
    "encoder": models.bert.accounting,
    "t5": models.t5.accounting,
}
_INITIALIZATION: dict[str, Any] = {
    "decoder": models.initialization,
    "encoder": models.bert.initialization,
    "t5": models.t5.initialization,
}
# What stands on a model and is not of it: what pretraining and fine-tuning exchange for each other.
_HEADS = {
    "decoder": ("reward.", "head."),
    "encoder": ("masked_lm.", "pair.", "classifier.", "span.", "pooler."),
    "t5": (),
}


def _of(table: dict[str, Any], config: AnyModelConfig) -> Any:
    kind = kind_of(config)
    assert kind is not None
    return table[kind]


def parameter_shapes(config: AnyModelConfig) -> Shapes:
    """Canonical name -> shape of every parameter."""
    shapes: Shapes = _of(_SIZES, config).parameter_shapes(config)
    return shapes


def count_parameters(config: AnyModelConfig) -> ParameterCount:
    """Exact counts, equal to what the built model holds."""
    count: ParameterCount = _of(_SIZES, config).count_parameters(config)
    return count


def flops_per_token(config: AnyModelConfig, context: int | None = None) -> Flops:
    """Floating-point operations per token, forward and backward."""
    flops: Flops = _of(_SIZES, config).flops_per_token(config, context)
    return flops


def activation_memory(config: AnyModelConfig, batch: int, **options: Any) -> ActivationMemory:
    """Bytes of activations of one micro-batch; options as of `models.accounting.activation_memory`."""
    memory: ActivationMemory = _of(_ACCOUNTING, config).activation_memory(config, batch, **options)
    return memory


def initial_values(name: str, start: int, stop: int, config: AnyModelConfig, seed: int) -> np.ndarray:
    """Numbers start..stop-1 (float32) of the flattened parameter `name`."""
    values: np.ndarray = _of(_INITIALIZATION, config).initial_values(name, start, stop, config, seed)
    return values


def learning_rate_scale(config: AnyModelConfig, name: str) -> float:
    """What the learning rate is multiplied by for parameter `name`: 1, but for decoders under muP."""
    return models.mup.learning_rate_scale(name, config) if isinstance(config, ModelConfig) else 1.0


def build(config: AnyModelConfig) -> "nn.Module":
    """The model, with the head that the configuration names; on the meta device nothing is allocated."""
    if isinstance(config, EncoderConfig):
        from models.bert.tasks import make_encoder

        return make_encoder(config)
    if isinstance(config, T5Config):
        from models.t5.model import T5

        return T5(config)
    from models.heads import RewardModel
    from models.transformer import Transformer

    return RewardModel(config) if config.head == "reward" else Transformer(config)


def is_head(config: AnyModelConfig, name: str) -> bool:
    """Whether parameter `name` belongs to a head, which another task exchanges for its own."""
    if isinstance(config, ModelConfig) and config.head == "lm":
        # Its own head is what a language model was pretrained for.
        return name.startswith("reward.")
    return name.startswith(_of(_HEADS, config))


def block_of(name: str) -> str:
    """The block that a parameter belongs to, such as `encoder.blocks.3`; "" for what is outside of all."""
    found = re.match(r"(?:\w+\.)?blocks\.\d+(?=\.)", name)
    return found.group() if found else ""


def is_hidden_matrix(name: str, num_dims: int) -> bool:
    """Whether a parameter is a matrix within a block: no embedding, head, vector or stack of experts."""
    return num_dims == 2 and block_of(name) != ""
