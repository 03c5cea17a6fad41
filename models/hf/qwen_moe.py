"""Qwen2-MoE and Qwen3-MoE: Qwen's attention, and a sparse mixture of experts; Qwen2's are shared in part."""

from typing import Any

from models.config import ModelConfig
from models.hf.format import Format
from models.hf.llama import (
    BLOCK,
    EXPERTS,
    FREQUENCIES,
    LAYER,
    MLP,
    RULES,
    common_fields,
    common_settings,
    head_fields,
    head_settings,
)
from models.hf.rules import Rule, rule
from models.hf.settings import Settings
from seedbed.errors import DataError

SPARSE: tuple[Rule, ...] = (
    *RULES,
    *EXPERTS,
    *(
        rule(f"{LAYER}.mlp.shared_expert.{theirs}.weight", f"{BLOCK}.mlp.shared.{ours}.weight")
        for theirs, ours in MLP.items()
    ),
    rule(f"{LAYER}.mlp.shared_expert_gate.weight", f"{BLOCK}.mlp.shared_gate.weight"),
)


def sparse_fields(settings: Settings) -> dict[str, Any]:
    """What both say alike: dense layers, if there are any, come before those with experts."""
    settings.only("decoder_sparse_step", 1)
    settings.only("use_sliding_window", False)
    for key in ("sliding_window", "max_window_layers"):
        settings.get(key, None)
    dense = settings.get("mlp_only_layers", None) or []
    if dense != list(range(len(dense))):
        raise DataError(
            f"config.json has dense layers {dense} (mlp_only_layers)", "supported: the first layers, or none"
        )
    return {
        **common_fields(settings),
        "num_dense_layers": len(dense),
        # The name that newer versions write, and the first.
        "num_experts": settings.get("num_local_experts", None) or settings.get("num_experts"),
        "experts_per_token": settings.get("num_experts_per_tok"),
        "expert_width": settings.get("moe_intermediate_size"),
        "expert_weights": "softmax_of_chosen" if settings.get("norm_topk_prob", False) else "softmax",
    }


def sparse_settings(config: ModelConfig) -> dict[str, Any]:
    """`sparse_fields`, the other way."""
    return {
        **common_settings(config),
        "decoder_sparse_step": 1,
        "use_sliding_window": False,
        "mlp_only_layers": list(range(config.num_dense_layers)),
        "num_experts": config.num_experts,
        "num_experts_per_tok": config.experts_per_token,
        "moe_intermediate_size": config.expert_hidden_width,
        "norm_topk_prob": config.expert_weights == "softmax_of_chosen",
    }


def qwen2_moe_fields(settings: Settings) -> dict[str, Any]:
    kinds = settings.get("layer_types", None) or ["full_attention"]
    if set(kinds) != {"full_attention"}:
        raise DataError("config.json has layers with a sliding window", "supported: full_attention for all")
    shared, width = settings.get("shared_expert_intermediate_size"), settings.get("moe_intermediate_size")
    if shared % width:
        raise DataError(
            f"config.json has shared_expert_intermediate_size = {shared}, which is no multiple of "
            f"moe_intermediate_size = {width}"
        )
    return sparse_fields(settings) | {
        "num_kv_heads": settings.get("num_key_value_heads", None) or settings.get("num_attention_heads"),
        "qkv_bias": settings.get("qkv_bias", True),
        "num_shared_experts": shared // width,
    }


def qwen2_moe_settings(config: ModelConfig) -> dict[str, Any]:
    return sparse_settings(config) | {
        "num_key_value_heads": config.kv_heads,
        "qkv_bias": config.qkv_bias,
        "shared_expert_intermediate_size": config.num_shared_experts * config.expert_hidden_width,
    }


def qwen3_moe_fields(settings: Settings) -> dict[str, Any]:
    settings.only("attention_bias", False)
    return sparse_fields(settings) | head_fields(settings)


def qwen3_moe_settings(config: ModelConfig) -> dict[str, Any]:
    return sparse_settings(config) | head_settings(config) | {"attention_bias": False}


QWEN2_MOE = Format(
    "qwen2_moe",
    "qwen2_moe",
    "Qwen2MoeForCausalLM",
    "model.",
    lambda _: SPARSE,
    qwen2_moe_fields,
    qwen2_moe_settings,
    FREQUENCIES,
)
QWEN3_MOE = Format(
    "qwen3_moe",
    "qwen3_moe",
    "Qwen3MoeForCausalLM",
    "model.",
    lambda _: SPARSE,
    qwen3_moe_fields,
    qwen3_moe_settings,
    FREQUENCIES,
)
