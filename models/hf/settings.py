"""Reading config.json with nothing passed over: what is read, what is refused, what is left.

A key that would change the computation is refused by name; one that nobody has heard of is told.
"""

import math
from collections.abc import Mapping
from typing import Any

from models.config import ModelConfig
from seedbed.errors import DataError

REQUIRED = object()

# Of the format, of training, or of generation: they change no number that the model computes.
HARMLESS = frozenset(
    {
        "architectures", "model_type", "transformers_version", "torch_dtype", "dtype", "use_cache",
        "_name_or_path",
        "bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "sep_token_id", "initializer_range",
        "pretraining_tp", "task_specific_params", "output_router_logits", "router_aux_loss_coef", "auto_map",
        "return_dict", "output_attentions", "output_hidden_states", "is_decoder", "is_encoder_decoder",
        "chunk_size_feed_forward", "id2label", "label2id", "problem_type",
    }
)  # fmt: skip


class Settings:
    """The settings of one config.json, and which of them have been asked for."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self._known = set(HARMLESS)
        self.notices: list[str] = []

    def get(self, key: str, default: Any = REQUIRED) -> Any:
        """The value of `key`; a key without default must be there."""
        self._known.add(key)
        if key not in self._values and default is REQUIRED:
            raise DataError(f"config.json has no {key}", "give the folder as it was published")
        return self._values.get(key, default)

    def only(self, key: str, *allowed: Any) -> None:
        """Refuse a value of `key` with which the model would compute something else; absent is the first."""
        if self.get(key, allowed[0]) not in allowed:
            raise DataError(
                f"config.json has {key} = {self._values[key]!r}, which is not supported",
                f"supported: {', '.join(map(repr, allowed))}",
            )

    def not_taken(self, *keys: str) -> None:
        """Dropout and noise of training: told, since a run has settings of its own for them."""
        told = [f"{key} = {self.get(key)}" for key in keys if self.get(key, 0)]
        if told:
            self.notices.append(f"not taken over: {', '.join(told)}; set model.dropout where it is wanted")

    def unread(self) -> list[str]:
        """Keys that nobody asked for."""
        return sorted(set(self._values) - self._known)


def rope_fields(settings: Settings) -> dict[str, Any]:
    """Our fields of the rotary embedding, from the newer `rope_parameters` or the older pair of keys."""
    newer = settings.get("rope_parameters", None)
    older = {"rope_theta": settings.get("rope_theta", 10_000.0), **(settings.get("rope_scaling", None) or {})}
    given = dict(newer or older)
    fields: dict[str, Any] = {"rope_base": float(given.pop("rope_theta", 10_000.0))}
    kind = given.pop("rope_type", given.pop("type", "default"))
    given.pop("type", None)
    if given.pop("partial_rotary_factor", 1.0) != 1 or settings.get("partial_rotary_factor", 1.0) != 1:
        raise DataError("config.json rotates a part of each head only, which is not supported")
    if kind == "default":
        return fields
    if kind == "linear":
        return fields | {"rope_scaling": kind, "rope_factor": float(given["factor"])}
    if kind == "llama3":
        return fields | {
            "rope_scaling": kind,
            "rope_factor": float(given["factor"]),
            "rope_slow_turns": float(given["low_freq_factor"]),
            "rope_fast_turns": float(given["high_freq_factor"]),
            "rope_original_context": given["original_max_position_embeddings"],
        }
    if kind == "yarn" and given.get("truncate", True):
        return fields | {
            "rope_scaling": kind,
            "rope_factor": float(given["factor"]),
            "rope_slow_turns": float(given.get("beta_slow") or 1),
            "rope_fast_turns": float(given.get("beta_fast") or 32),
            "rope_original_context": given["original_max_position_embeddings"],
            "rope_stretch": _yarn_stretch(given),
        }
    raise DataError(
        f"config.json scales rotary positions by {kind!r}, in a form that is not supported",
        "supported: 'default', 'linear', 'llama3', 'yarn' (truncated)",
    )


def yarn_length(factor: float, weight: float = 1.0) -> float:
    """0.1 w ln(s) + 1 (Peng et al. 2023, equation 22; the weight w is DeepSeek's)."""
    return 0.1 * weight * math.log(factor) + 1 if factor > 1 else 1.0


def _yarn_stretch(given: Mapping[str, Any]) -> float:
    if given.get("attention_factor") is not None:
        return float(given["attention_factor"])
    factor, weight, weight_of_all = given["factor"], given.get("mscale"), given.get("mscale_all_dim")
    if weight and weight_of_all:
        return yarn_length(factor, weight) / yarn_length(factor, weight_of_all)
    return yarn_length(factor)


def rope_settings(config: ModelConfig) -> dict[str, Any]:
    """The keys of config.json for our rotary embedding, in the form that all versions read."""
    scaling: dict[str, Any] = {"rope_type": config.rope_scaling, "factor": config.rope_factor}
    if config.rope_scaling == "llama3":
        scaling |= {"low_freq_factor": config.rope_slow_turns, "high_freq_factor": config.rope_fast_turns}
    if config.rope_scaling == "yarn":
        scaling |= {"beta_slow": config.rope_slow_turns, "beta_fast": config.rope_fast_turns}
        scaling["attention_factor"] = config.rotary_stretch
    if config.rope_scaling in ("llama3", "yarn"):
        scaling["original_max_position_embeddings"] = config.rope_original_context
    return {
        "rope_theta": config.rope_base,
        "rope_scaling": None if config.rope_scaling == "none" else scaling,
    }
