"""GPT-1 and GPT-2: [in, out] matrices, queries, keys and values in one."""

from typing import Any

from models.config import ModelConfig
from models.hf.format import Format
from models.hf.rules import FUSED, FUSED_TRANSPOSED, TRANSPOSED, Rule, rule
from models.hf.settings import Settings

# Causal masks, which old versions stored with the weights.
MASKS = r"transformer\.h\.\d+\.attn\.(bias|masked_bias)"


def _block(theirs: str, ours: str) -> tuple[Rule, ...]:
    qkv = tuple(f"{ours}.attention.{part}" for part in ("query", "key", "value"))
    names = {"attn.c_proj": "attention.output", "mlp.c_fc": "mlp.up", "mlp.c_proj": "mlp.down"}
    norms = {"ln_1": "attention_norm", "ln_2": "mlp_norm"}
    return (
        rule(f"{theirs}.attn.c_attn.weight", tuple(f"{name}.weight" for name in qkv), FUSED_TRANSPOSED),
        rule(f"{theirs}.attn.c_attn.bias", tuple(f"{name}.bias" for name in qkv), FUSED),
        *(rule(f"{theirs}.{t}.weight", f"{ours}.{o}.weight", TRANSPOSED) for t, o in names.items()),
        *(rule(f"{theirs}.{t}.bias", f"{ours}.{o}.bias") for t, o in names.items()),
        *(rule(f"{theirs}.{t}.{s}", f"{ours}.{o}.{s}") for t, o in norms.items() for s in ("weight", "bias")),
    )


BLOCK = _block("transformer.h.{layer}", "blocks.{layer}")

GPT1_RULES = (
    rule("transformer.tokens_embed.weight", "embedding.weight"),
    rule("transformer.positions_embed.weight", "positions.weight"),
    *BLOCK,
    rule("lm_head.weight", "head.weight"),
)

GPT2_RULES = (
    rule("transformer.wte.weight", "embedding.weight"),
    rule("transformer.wpe.weight", "positions.weight"),
    *BLOCK,
    rule("transformer.ln_f.weight", "norm.weight"),
    rule("transformer.ln_f.bias", "norm.bias"),
    rule("lm_head.weight", "head.weight"),
)


def _fields(settings: Settings) -> dict[str, Any]:
    settings.not_taken("resid_pdrop", "embd_pdrop", "attn_pdrop")
    for key in ("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels"):
        settings.get(key, None)
    settings.get("summary_first_dropout", None)
    return {
        "num_layers": settings.get("n_layer"),
        "width": settings.get("n_embd"),
        "num_heads": settings.get("n_head"),
        "context": settings.get("n_positions"),
        "vocab_size": settings.get("vocab_size"),
        "norm_eps": settings.get("layer_norm_epsilon", 1e-5),
        "tie_embeddings": settings.get("tie_word_embeddings", True),
    }


def _settings(config: ModelConfig) -> dict[str, Any]:
    return {
        "n_layer": config.num_layers,
        "n_embd": config.width,
        "n_head": config.num_heads,
        "n_positions": config.context,
        "vocab_size": config.vocab_size,
        "layer_norm_epsilon": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), config.dropout),
    }


def gpt1_fields(settings: Settings) -> dict[str, Any]:
    # What GPT-1's files call "gelu" is the tanh form.
    settings.only("afn", "gelu", "gelu_new")
    settings.get("n_ctx", None)
    return _fields(settings)


def gpt1_settings(config: ModelConfig) -> dict[str, Any]:
    return _settings(config) | {"afn": "gelu"}


def gpt2_fields(settings: Settings) -> dict[str, Any]:
    settings.only("activation_function", "gelu_new", "gelu_pytorch_tanh")
    settings.only("scale_attn_weights", True)
    settings.only("scale_attn_by_inverse_layer_idx", False)
    settings.only("add_cross_attention", False)
    for key in ("n_ctx", "reorder_and_upcast_attn"):
        settings.get(key, None)
    return _fields(settings) | {"mlp_width": settings.get("n_inner", None) or 0}


def gpt2_settings(config: ModelConfig) -> dict[str, Any]:
    return _settings(config) | {"n_inner": config.mlp_width or None, "activation_function": "gelu_new"}


GPT1 = Format(
    "openai-gpt",
    "gpt1",
    "OpenAIGPTLMHeadModel",
    "transformer.",
    lambda _: GPT1_RULES,
    gpt1_fields,
    gpt1_settings,
    MASKS,
)
GPT2 = Format(
    "gpt2", "gpt2", "GPT2LMHeadModel", "transformer.", lambda _: GPT2_RULES, gpt2_fields, gpt2_settings, MASKS
)
