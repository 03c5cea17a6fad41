"""Model shapes by one dial: the width says how deep a model is, how many heads it has, and how it learns.

    depth          width / aspect, aspect being that of the recipe
    heads          width / head size; heads of keys and values in the recipe's proportion
    MLP            in the recipe's proportion
    learning rate  lr (N_0 / N)^0.25: DeepSeek-AI 2024 (arXiv:2401.02954) find C^-0.125, and C ~ N^2 along the
                   optimum; with muP it is the recipe's own (Yang et al. 2022), whose width is the base width
    batch          tokens_per_step (D / D_0)^0.383 (Bergsma et al. 2025, arXiv:2505.13738)

0 marks what the recipe has.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from models.config import ModelConfig
from models.families import count_parameters, flops_per_token
from seedbed.errors import UsageError
from training.config import Config

RATE_BY_SIZE, BATCH_BY_TOKENS = -0.25, 0.383
MOST_RUNGS = 512
Make = Callable[[Sequence[str]], Config]
"""--set assignments on top of the recipe -> a configuration that is whole."""


@dataclass(frozen=True)
class Rung:
    """One shape of the ladder."""

    model: ModelConfig
    settings: dict[str, Any]
    """Dotted settings that make the recipe this model, with its learning rate."""
    parameters: int
    """As the ladder counts them."""
    flops_per_token: float
    """Forward and backward, with the attention that a causal mask leaves: what `seedbed plan` counts."""


@dataclass(frozen=True)
class Dial:
    """How the ladder is derived from a recipe."""

    base: Config
    count: str = "total"
    """What N counts: total, active or non_embedding parameters."""
    is_mup: bool = False

    @property
    def model(self) -> ModelConfig:
        """The recipe's. Raises UsageError where it is no decoder, or has what does not follow the width."""
        model = self.base.model
        if not isinstance(model, ModelConfig):
            raise UsageError(
                f"a ladder is of decoders, not of model.family = {model.family!r}",
                "plan from a recipe such as gpt-demo",
            )
        if model.latent_width or model.lora_rank:
            part = "latent attention" if model.latent_width else "adapters"
            raise UsageError(f"a ladder of models with {part} is not worked out", "take another recipe")
        return model

    def rung(self, width: int) -> Rung:
        """The shape of a width, which must be a multiple of `step`."""
        base = self.model
        heads = width // base.head_size
        shape: dict[str, Any] = {
            "model.width": width,
            "model.num_layers": max(1, round(base.num_layers * width / base.width)),
            "model.num_heads": heads,
        }
        if base.num_kv_heads:
            shape["model.num_kv_heads"] = heads // (base.num_heads // base.num_kv_heads)
        for name in ("mlp_width", "expert_width"):
            if getattr(base, name):
                shape[f"model.{name}"] = max(1, round(getattr(base, name) * width / base.width))
        if self.is_mup:
            shape |= {"model.mup_base_width": base.width, "model.mup_base_head_width": base.head_size}
        changed = {name.removeprefix("model."): value for name, value in shape.items()}
        model = ModelConfig.model_validate(base.model_dump() | changed)
        size = self.size(model)
        rate = self.base.optimizer.lr
        if not self.is_mup:
            rate *= (size / self.size(base)) ** RATE_BY_SIZE
        return Rung(
            model, shape | {"optimizer.lr": float(f"{rate:.3g}")}, size, flops_per_token(model).causal
        )

    @property
    def step(self) -> int:
        """Of widths: whole heads, and whole groups of them that share keys and values."""
        return self.model.head_size * (self.model.num_heads // self.model.kv_heads)

    def size(self, model: ModelConfig) -> int:
        """N."""
        return int(getattr(count_parameters(model), self.count))

    def nearest(self, sizes: Sequence[float]) -> list[Rung]:
        """The rungs next to `sizes`, each once, from small to large. Raises UsageError for too large ones."""
        found = {rung.parameters: rung for rung in map(self._nearest, sizes)}
        return [found[size] for size in sorted(found)]

    def _nearest(self, size: float) -> Rung:
        low, high = 1, 1
        while self.rung(high * self.step).parameters < size:
            low, high = high, 2 * high
            if low >= MOST_RUNGS:
                raise UsageError(
                    f"{size:.3g} parameters are more than {MOST_RUNGS} rungs of width {self.step} away",
                    "start from a recipe of larger heads, or with smaller budgets",
                )
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.rung(middle * self.step).parameters < size else (low, middle)
        both = (self.rung(number * self.step) for number in (low, high))
        return min(both, key=lambda one: _ratio(one.parameters, size))

    def batch_tokens(self, tokens: float) -> int:
        """Tokens per step for a run of `tokens`, in whole micro-batches: on whatever devices, the same."""
        base = self.base
        unit = base.batch.micro_batch_size * base.model.context
        usual = base.run.steps * base.batch.tokens_per_step
        wanted = base.batch.tokens_per_step * (tokens / usual) ** BATCH_BY_TOKENS
        return unit * max(1, round(wanted / unit))


def _ratio(one: float, other: float) -> float:
    return max(one / other, other / one)


def assignments(settings: dict[str, Any]) -> list[str]:
    """Settings as --set takes them."""
    return [f"{name}={_plain(value)}" for name, value in settings.items()]


def _plain(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)
