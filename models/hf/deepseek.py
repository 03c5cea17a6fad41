"""DeepSeek-V2: latent attention, and experts of which some are shared.

Its files keep queries with and without position in one matrix, keys and values in another, and turn
neighbouring numbers (x_2i, x_2i+1) where we turn (x_i, x_i+R/2): the same angles in another order.

Shapes: H heads, K head size without position, R its rotary part, V value size, I columns.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from models.config import ModelConfig
from models.hf.format import Format
from models.hf.llama import (
    BLOCK,
    DENSE_MLP,
    EXPERTS,
    FREQUENCIES,
    LAYER,
    MLP,
    OUTSIDE,
    common_fields,
    common_settings,
)
from models.hf.rules import Rule, Transform, rule
from models.hf.settings import Settings, rope_settings, yarn_length


def _halves(rows_HRI: Tensor) -> Tensor:
    """Rows (0, 1, 2, 3, ...) -> (0, 2, ..., 1, 3, ...), for each head."""
    return torch.cat((rows_HRI[:, 0::2], rows_HRI[:, 1::2]), dim=1)


def _neighbours(rows_HRI: Tensor) -> Tensor:
    """The inverse of `_halves`."""
    first, second = rows_HRI.chunk(2, dim=1)
    return torch.stack((first, second), dim=2).flatten(1, 2)


def _split_queries(theirs: list[Tensor], config: ModelConfig) -> Sequence[Tensor]:
    per_head = theirs[0].unflatten(0, (config.num_heads, -1))
    plain, rotary = per_head.split((config.head_size, config.rope_width), dim=1)
    return plain.flatten(0, 1), _halves(rotary).flatten(0, 1)


def _join_queries(ours: list[Tensor], config: ModelConfig) -> Sequence[Tensor]:
    plain, rotary = (part.unflatten(0, (config.num_heads, -1)) for part in ours)
    return [torch.cat((plain, _neighbours(rotary)), dim=1).flatten(0, 1)]


def _split_latent(theirs: list[Tensor], config: ModelConfig) -> Sequence[Tensor]:
    latent, rotary = theirs[0].split((config.latent_width, config.rope_width))
    return latent, _halves(rotary[None])[0]


def _join_latent(ours: list[Tensor], config: ModelConfig) -> Sequence[Tensor]:
    return [torch.cat((ours[0], _neighbours(ours[1][None])[0]))]


def _split_keys_and_values(theirs: list[Tensor], config: ModelConfig) -> Sequence[Tensor]:
    per_head = theirs[0].unflatten(0, (config.num_heads, -1))
    return [part.flatten(0, 1) for part in per_head.split((config.head_size, config.value_size), dim=1)]


def _join_keys_and_values(ours: list[Tensor], config: ModelConfig) -> Sequence[Tensor]:
    return [torch.cat([part.unflatten(0, (config.num_heads, -1)) for part in ours], dim=1).flatten(0, 1)]


QUERIES = Transform(_split_queries, _join_queries)
LATENT = Transform(_split_latent, _join_latent)
KEYS_AND_VALUES = Transform(_split_keys_and_values, _join_keys_and_values)

THEIRS, OURS = f"{LAYER}.self_attn", f"{BLOCK}.attention"
QUERY = (f"{OURS}.query.weight", f"{OURS}.query_rotary.weight")


COMMON = (
    *OUTSIDE,
    *DENSE_MLP,
    rule(
        f"{THEIRS}.kv_a_proj_with_mqa.weight", (f"{OURS}.latent.weight", f"{OURS}.key_rotary.weight"), LATENT
    ),
    rule(f"{THEIRS}.kv_a_layernorm.weight", f"{OURS}.latent_norm.weight"),
    rule(f"{THEIRS}.kv_b_proj.weight", (f"{OURS}.key.weight", f"{OURS}.value.weight"), KEYS_AND_VALUES),
    rule(f"{THEIRS}.o_proj.weight", f"{OURS}.output.weight"),
    *EXPERTS,
    *(
        rule(f"{LAYER}.mlp.shared_experts.{theirs}.weight", f"{BLOCK}.mlp.shared.{ours}.weight")
        for theirs, ours in MLP.items()
    ),
)
DIRECT_QUERIES = (rule(f"{THEIRS}.q_proj.weight", QUERY, QUERIES),)
LATENT_QUERIES = (
    rule(f"{THEIRS}.q_a_proj.weight", f"{OURS}.query_latent.weight"),
    rule(f"{THEIRS}.q_a_layernorm.weight", f"{OURS}.query_latent_norm.weight"),
    rule(f"{THEIRS}.q_b_proj.weight", QUERY, QUERIES),
)


def deepseek_v2_rules(config: ModelConfig) -> tuple[Rule, ...]:
    return (*COMMON, *(LATENT_QUERIES if config.query_latent_width else DIRECT_QUERIES))


def _temperature(settings: Settings) -> float:
    """DeepSeek sharpens all scores for YaRN, not those of rotated numbers alone: a temperature."""
    scaling = settings.get("rope_parameters", None) or settings.get("rope_scaling", None) or {}
    weight = scaling.get("mscale_all_dim", 0)
    return 1 / yarn_length(scaling["factor"], weight) ** 2 if weight else 1.0


def _temperature_settings(config: ModelConfig) -> dict[str, Any]:
    settings = rope_settings(config)
    if config.rope_scaling == "yarn" and config.attention_temperature != 1:
        weight = (config.attention_temperature**-0.5 - 1) / (0.1 * math.log(config.rope_factor))
        settings["rope_scaling"]["mscale_all_dim"] = weight
        if config.rotary_stretch == 1:
            # Readers that do not know attention_factor take the quotient of the two.
            settings["rope_scaling"]["mscale"] = weight
    return settings


def deepseek_v2_fields(settings: Settings) -> dict[str, Any]:
    settings.only("attention_bias", False)
    settings.only("norm_topk_prob", False)
    settings.only("moe_layer_freq", 1)
    settings.only("scoring_func", "softmax")
    settings.only("num_key_value_heads", settings.get("num_attention_heads"), None)
    # The size of a head under several names, and the loss and the places of experts in training.
    for key in ("head_dim", "qk_head_dim", "aux_loss_alpha", "seq_aux", "ep_size"):
        settings.get(key, None)
    limited = settings.get("topk_method", "greedy") == "group_limited_greedy"
    settings.only("topk_method", "greedy", "group_limited_greedy")
    num_groups, groups_per_token = settings.get("n_group", None), settings.get("topk_group", None)
    return common_fields(settings) | {
        "head_width": settings.get("qk_nope_head_dim"),
        "rope_width": settings.get("qk_rope_head_dim"),
        "value_width": settings.get("v_head_dim"),
        "latent_width": settings.get("kv_lora_rank"),
        "query_latent_width": settings.get("q_lora_rank", None) or 0,
        "num_experts": settings.get("n_routed_experts"),
        "experts_per_token": settings.get("num_experts_per_tok"),
        "num_expert_groups": (num_groups if limited else 1) or 1,
        "groups_per_token": (groups_per_token if limited else 1) or 1,
        "expert_scale": float(settings.get("routed_scaling_factor", 1.0)),
        "expert_width": settings.get("moe_intermediate_size"),
        "num_shared_experts": settings.get("n_shared_experts"),
        "num_dense_layers": settings.get("first_k_dense_replace", 0),
        "attention_temperature": _temperature(settings),
    }


def deepseek_v2_settings(config: ModelConfig) -> dict[str, Any]:
    limited = config.num_expert_groups > 1
    return common_settings(config) | {
        "num_key_value_heads": config.num_heads,
        "qk_nope_head_dim": config.head_size,
        "qk_rope_head_dim": config.rope_width,
        "v_head_dim": config.value_size,
        "kv_lora_rank": config.latent_width,
        "q_lora_rank": config.query_latent_width or None,
        "n_routed_experts": config.num_experts,
        "num_experts_per_tok": config.experts_per_token,
        "topk_method": "group_limited_greedy" if limited else "greedy",
        "n_group": config.num_expert_groups if limited else None,
        "topk_group": config.groups_per_token if limited else None,
        "norm_topk_prob": False,
        "routed_scaling_factor": config.expert_scale,
        "moe_intermediate_size": config.expert_hidden_width,
        "n_shared_experts": config.num_shared_experts,
        "first_k_dense_replace": config.num_dense_layers,
        "attention_bias": False,
        **_temperature_settings(config),
    }


DEEPSEEK_V2 = Format(
    "deepseek_v2",
    "deepseek_v2",
    "DeepseekV2ForCausalLM",
    "model.",
    deepseek_v2_rules,
    deepseek_v2_fields,
    deepseek_v2_settings,
    FREQUENCIES,
)
