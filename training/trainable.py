"""Which parameters learn, by name: all, adapters, those of the head, or those of the last blocks too."""

import re
from collections.abc import Iterable

from models.config import ModelConfig
from models.families import AnyModelConfig, block_of, parameter_shapes
from models.sizes import LORA_A, LORA_B
from models.t5.config import T5Config
from seedbed.errors import ConfigError

HEADS = ("head.", "reward.", "masked_lm.", "pair.", "classifier.", "span.", "pooler.")
AFTER_BLOCKS = (*HEADS, "norm.")


def trained_names(model: AnyModelConfig, trained: str) -> frozenset[str]:
    """The parameters that `optimizer.trained` names; ConfigError when the model has none such."""
    names = list(parameter_shapes(model))
    adapters = {name for name in names if name.endswith((LORA_A, LORA_B))}
    if bool(adapters) != (trained == "lora"):
        raise ConfigError(
            f'optimizer.trained = "{trained}" and model.lora_rank = {getattr(model, "lora_rank", 0)}: '
            "adapters learn alone, and only where there are some",
            'set optimizer.trained = "lora" and a model.lora_rank, or neither',
        )
    if adapters:
        return frozenset(adapters | {name for name in names if name.startswith("reward.")})
    if trained == "all":
        return frozenset(names)
    if isinstance(model, T5Config):
        raise ConfigError(
            f'optimizer.trained = "{trained}" is not for a {model.family}, which has two stacks of blocks',
            'set it to "all"',
        )
    after = {name for name in names if name.startswith(AFTER_BLOCKS)}
    if trained == "head":
        if not any(name.startswith(HEADS) for name in after):
            raise ConfigError(
                f'optimizer.trained = "head", and the head of this {model.family} is its embedding'
                if isinstance(model, ModelConfig)
                else f'optimizer.trained = "head", and this {model.family} has no head',
                'set model.tie_embeddings to false, or optimizer.trained to "last:1"',
            )
        return frozenset(after)
    count, numbers = int(trained.removeprefix("last:")), _blocks(names)
    if count > len(numbers):
        raise ConfigError(
            f'optimizer.trained = "{trained}", and this {model.family} has {len(numbers)} blocks',
            f'set it to "all", or to at most "last:{len(numbers)}"',
        )
    chosen = {f"blocks.{number}" for number in numbers[-count:]}
    return frozenset(after | {name for name in names if block_of(name) in chosen})


def _blocks(names: Iterable[str]) -> list[int]:
    found = (re.fullmatch(r"blocks\.(\d+)", block_of(name)) for name in names)
    return sorted({int(match[1]) for match in found if match})
