"""Llama and its dense relatives: Mistral (a window), Qwen2 (biases), Qwen3 (norms of queries and keys)."""

from typing import Any

from models.config import ModelConfig
from models.hf.format import Format
from models.hf.rules import STACKED, Rule, rule
from models.hf.settings import Settings, rope_fields, rope_settings
from seedbed.errors import DataError

LAYER, BLOCK = "model.layers.{layer}", "blocks.{layer}"
ATTENTION = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "o_proj": "output"}
MLP = {"gate_proj": "gate", "up_proj": "up", "down_proj": "down"}

# Frequencies, which old versions stored with the weights.
FREQUENCIES = r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq"

OUTSIDE = (
    rule("model.embed_tokens.weight", "embedding.weight"),
    rule(f"{LAYER}.input_layernorm.weight", f"{BLOCK}.attention_norm.weight"),
    rule(f"{LAYER}.post_attention_layernorm.weight", f"{BLOCK}.mlp_norm.weight"),
    rule("model.norm.weight", "norm.weight"),
    rule("lm_head.weight", "head.weight"),
)
SELF_ATTENTION = (
    *(
        rule(f"{LAYER}.self_attn.{theirs}.{part}", f"{BLOCK}.attention.{ours}.{part}")
        for theirs, ours in ATTENTION.items()
        for part in ("weight", "bias")
    ),
    rule(f"{LAYER}.self_attn.q_norm.weight", f"{BLOCK}.attention.query_norm.weight"),
    rule(f"{LAYER}.self_attn.k_norm.weight", f"{BLOCK}.attention.key_norm.weight"),
)
DENSE_MLP = tuple(
    rule(f"{LAYER}.mlp.{theirs}.{part}", f"{BLOCK}.mlp.{ours}.{part}")
    for theirs, ours in MLP.items()
    for part in ("weight", "bias")
)
# As DeepSeek and Qwen name them.
EXPERTS = (
    rule(f"{LAYER}.mlp.gate.weight", f"{BLOCK}.mlp.router.weight"),
    *(
        rule(f"{LAYER}.mlp.experts.{{expert}}.{theirs}.weight", f"{BLOCK}.mlp.experts.{ours}", STACKED)
        for theirs, ours in MLP.items()
    ),
)
RULES: tuple[Rule, ...] = (*OUTSIDE, *SELF_ATTENTION, *DENSE_MLP)


def common_fields(settings: Settings) -> dict[str, Any]:
    """What all models of this shape say alike."""
    settings.only("hidden_act", "silu")
    settings.only("mlp_bias", False)
    settings.not_taken("attention_dropout")
    return {
        "num_layers": settings.get("num_hidden_layers"),
        "width": settings.get("hidden_size"),
        "num_heads": settings.get("num_attention_heads"),
        "mlp_width": settings.get("intermediate_size"),
        "context": settings.get("max_position_embeddings"),
        "vocab_size": settings.get("vocab_size"),
        "norm_eps": settings.get("rms_norm_eps", 1e-6),
        "tie_embeddings": settings.get("tie_word_embeddings", False),
        **rope_fields(settings),
    }


def head_fields(settings: Settings) -> dict[str, Any]:
    """Heads of queries, of keys and values, and their size."""
    num_heads = settings.get("num_attention_heads")
    return {
        "num_kv_heads": settings.get("num_key_value_heads", None) or num_heads,
        "head_width": settings.get("head_dim", None) or 0,
    }


def common_settings(config: ModelConfig) -> dict[str, Any]:
    """`common_fields`, the other way."""
    return {
        "num_hidden_layers": config.num_layers,
        "hidden_size": config.width,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.hidden_width,
        "max_position_embeddings": config.context,
        "vocab_size": config.vocab_size,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        "hidden_act": "silu",
        **rope_settings(config),
    }


def head_settings(config: ModelConfig) -> dict[str, Any]:
    """`head_fields`, the other way."""
    return {"num_key_value_heads": config.kv_heads, "head_dim": config.head_size}


def llama_fields(settings: Settings) -> dict[str, Any]:
    settings.only("attention_bias", False)
    return common_fields(settings) | head_fields(settings)


def llama_settings(config: ModelConfig) -> dict[str, Any]:
    return common_settings(config) | head_settings(config) | {"attention_bias": False, "mlp_bias": False}


def mistral_fields(settings: Settings) -> dict[str, Any]:
    window = {"window": settings.get("sliding_window", None) or 0}
    return common_fields(settings) | head_fields(settings) | window


def mistral_settings(config: ModelConfig) -> dict[str, Any]:
    window = {"sliding_window": config.window or None}
    return common_settings(config) | head_settings(config) | window


def qwen2_fields(settings: Settings) -> dict[str, Any]:
    return common_fields(settings) | head_fields(settings) | {"window": _window(settings)}


def qwen2_settings(config: ModelConfig) -> dict[str, Any]:
    # Qwen2 itself has no setting for the size of a head, which is width / heads.
    heads = {"num_key_value_heads": config.kv_heads}
    return common_settings(config) | heads | _window_settings(config)


def qwen3_fields(settings: Settings) -> dict[str, Any]:
    settings.only("attention_bias", False)
    return qwen2_fields(settings) | {"head_width": settings.get("head_dim", 128)}


def qwen3_settings(config: ModelConfig) -> dict[str, Any]:
    heads = head_settings(config) | {"attention_bias": False}
    return common_settings(config) | heads | _window_settings(config)


def _window(settings: Settings) -> int:
    """The one window of all layers; 0 where none has one."""
    window, used = settings.get("sliding_window", None), settings.get("use_sliding_window", False)
    first = settings.get("max_window_layers", 28)
    num_layers = settings.get("num_hidden_layers")
    default = ["sliding_attention" if used and i >= first else "full_attention" for i in range(num_layers)]
    kinds = set(settings.get("layer_types", None) or default)
    if kinds == {"full_attention"}:
        return 0
    if kinds == {"sliding_attention"} and window:
        return int(window)
    raise DataError(
        f"config.json has layers of different kinds ({', '.join(sorted(map(str, kinds)))})",
        "one sliding window for all layers, or for none, is supported",
    )


def _window_settings(config: ModelConfig) -> dict[str, Any]:
    return {
        "use_sliding_window": config.window > 0,
        "sliding_window": config.window or None,
        "max_window_layers": 0 if config.window else config.num_layers,
    }


LLAMA = Format(
    "llama", "llama", "LlamaForCausalLM", "model.", lambda _: RULES, llama_fields, llama_settings, FREQUENCIES
)
MISTRAL = Format(
    "mistral",
    "mistral",
    "MistralForCausalLM",
    "model.",
    lambda _: RULES,
    mistral_fields,
    mistral_settings,
    FREQUENCIES,
)
QWEN2 = Format(
    "qwen2", "qwen2", "Qwen2ForCausalLM", "model.", lambda _: RULES, qwen2_fields, qwen2_settings, FREQUENCIES
)
QWEN3 = Format(
    "qwen3", "qwen3", "Qwen3ForCausalLM", "model.", lambda _: RULES, qwen3_fields, qwen3_settings, FREQUENCIES
)
