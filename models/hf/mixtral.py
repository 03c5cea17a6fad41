"""Mixtral: Llama's attention, and a sparse mixture of experts."""

from typing import Any

from models.config import ModelConfig
from models.hf.format import Format
from models.hf.llama import (
    BLOCK,
    FREQUENCIES,
    LAYER,
    OUTSIDE,
    SELF_ATTENTION,
    mistral_fields,
    mistral_settings,
)
from models.hf.rules import STACKED, rule
from models.hf.settings import Settings

MOE, EXPERT = f"{LAYER}.block_sparse_moe", f"{LAYER}.block_sparse_moe.experts.{{expert}}"
RULES = (
    *OUTSIDE,
    *SELF_ATTENTION,
    rule(f"{MOE}.gate.weight", f"{BLOCK}.mlp.router.weight"),
    rule(f"{EXPERT}.w1.weight", f"{BLOCK}.mlp.experts.gate", STACKED),
    rule(f"{EXPERT}.w3.weight", f"{BLOCK}.mlp.experts.up", STACKED),
    rule(f"{EXPERT}.w2.weight", f"{BLOCK}.mlp.experts.down", STACKED),
)


def mixtral_fields(settings: Settings) -> dict[str, Any]:
    settings.not_taken("router_jitter_noise")
    return mistral_fields(settings) | {
        "num_experts": settings.get("num_local_experts"),
        "experts_per_token": settings.get("num_experts_per_tok"),
    }


def mixtral_settings(config: ModelConfig) -> dict[str, Any]:
    return mistral_settings(config) | {
        "intermediate_size": config.expert_hidden_width,
        "num_local_experts": config.num_experts,
        "num_experts_per_tok": config.experts_per_token,
    }


MIXTRAL = Format(
    "mixtral",
    "mixtral",
    "MixtralForCausalLM",
    "model.",
    lambda _: RULES,
    mixtral_fields,
    mixtral_settings,
    FREQUENCIES,
)
