"""How large a model is and what it costs, by arithmetic alone: no torch, nothing built."""

import math
from dataclasses import dataclass

from models.config import ModelConfig

Shapes = dict[str, tuple[int, ...]]
LORA_A, LORA_B = ".lora_A", ".lora_B"
"""How the two matrices of an adapter are named, after their layer."""
NF4_BLOCK = 64
"""Numbers of a quantised matrix that share a scale."""


def parameter_shapes(config: ModelConfig) -> Shapes:
    """Canonical name -> shape of every parameter."""
    D, V = config.width, config.vocab_size
    shapes: Shapes = {"embedding.weight": (V, D)}
    if config.positions == "learned":
        shapes["positions.weight"] = (config.context, D)
    for layer in range(config.num_layers):
        attention = _latent_attention(config) if config.latent_width else _attention(config)
        mlp = _experts(config) if config.has_experts(layer) else _dense_mlp(config)
        parts = attention | mlp | _norm(config, "attention_norm") | _norm(config, "mlp_norm")
        shapes |= {f"blocks.{layer}.{name}": shape for name, shape in parts.items()}
        shapes |= _adapters(config, {f"blocks.{layer}.{name}": shape for name, shape in parts.items()})
    if config.norm_placement == "pre":
        shapes |= _norm(config, "norm")
    if config.head == "reward":
        shapes |= reward_head_shapes(config)
    elif not config.tie_embeddings:
        shapes["head.weight"] = (V, D)
    return shapes


def is_adapted(name: str, config: ModelConfig) -> bool:
    """Whether matrix `name` has an adapter."""
    places = (".attention.",) if config.lora_layers == "attention" else (".attention.", ".mlp.")
    return (
        config.lora_rank > 0
        and name.startswith("blocks.")
        and name.endswith(".weight")
        and any(place in name for place in places)
        and not name.endswith((".router.weight", ".shared_gate.weight", "norm.weight"))
    )


def bytes_of_weights(config: ModelConfig, bytes_per_value: int = 4) -> int:
    """Of a whole model in memory, with what is quantised in four bits and a float32 a block."""
    total = 0
    for name, shape in parameter_shapes(config).items():
        size = math.prod(shape)
        if config.lora_base == "nf4" and is_adapted(name, config):
            total += math.ceil(size / 2) + 4 * math.ceil(size / NF4_BLOCK)
        else:
            total += bytes_per_value * size
    return total


def _adapters(config: ModelConfig, shapes: Shapes) -> Shapes:
    found: Shapes = {}
    for name, shape in shapes.items():
        if is_adapted(name, config):
            layer = name.removesuffix(".weight")
            found |= {
                layer + LORA_A: (config.lora_rank, shape[1]),
                layer + LORA_B: (shape[0], config.lora_rank),
            }
    return found


def reward_head_shapes(config: ModelConfig) -> Shapes:
    """Of what stands in the place of a language model's head."""
    return {"reward.weight": (1, config.width), "reward.bias": (1,), "reward.log_temperature": (1,)}


def _linear(name: str, num_out: int, num_in: int, *, bias: bool) -> Shapes:
    weight: Shapes = {f"{name}.weight": (num_out, num_in)}
    return weight | {f"{name}.bias": (num_out,)} if bias else weight


def _norm(config: ModelConfig, name: str) -> Shapes:
    weight: Shapes = {f"{name}.weight": (config.width,)}
    return weight | {f"{name}.bias": (config.width,)} if config.norm == "layer" and config.bias else weight


def _attention(config: ModelConfig) -> Shapes:
    D, K = config.width, config.head_size
    q, kv, qkv_bias = config.num_heads * K, config.kv_heads * K, config.bias or config.qkv_bias
    shapes = (
        _linear("attention.query", q, D, bias=qkv_bias)
        | _linear("attention.key", kv, D, bias=qkv_bias)
        | _linear("attention.value", kv, D, bias=qkv_bias)
        | _linear("attention.output", D, q, bias=config.bias)
    )
    if config.qk_norm:
        shapes |= {"attention.query_norm.weight": (K,), "attention.key_norm.weight": (K,)}
    return shapes


def _latent_attention(config: ModelConfig) -> Shapes:
    D, H, C, R = config.width, config.num_heads, config.latent_width, config.rope_width
    query_from, shapes = D, {}
    if config.query_latent_width:
        query_from = config.query_latent_width
        shapes = _linear("attention.query_latent", query_from, D, bias=False)
        shapes["attention.query_latent_norm.weight"] = (query_from,)
    return (
        shapes
        | _linear("attention.query", H * config.head_size, query_from, bias=False)
        | _linear("attention.query_rotary", H * R, query_from, bias=False)
        | _linear("attention.latent", C, D, bias=False)
        | {"attention.latent_norm.weight": (C,)}
        | _linear("attention.key_rotary", R, D, bias=False)
        | _linear("attention.key", H * config.head_size, C, bias=False)
        | _linear("attention.value", H * config.value_size, C, bias=False)
        | _linear("attention.output", D, H * config.value_size, bias=False)
    )


def _dense_mlp(config: ModelConfig) -> Shapes:
    D, F = config.width, config.hidden_width
    gate = _linear("mlp.gate", F, D, bias=config.bias) if config.mlp == "swiglu" else {}
    up, down = _linear("mlp.up", F, D, bias=config.bias), _linear("mlp.down", D, F, bias=config.bias)
    return gate | up | down


def _experts(config: ModelConfig) -> Shapes:
    D, F, E = config.width, config.expert_hidden_width, config.num_experts
    shapes = _linear("mlp.router", E, D, bias=False) | {
        "mlp.experts.gate": (E, F, D),
        "mlp.experts.up": (E, F, D),
        "mlp.experts.down": (E, D, F),
    }
    shared = config.num_shared_experts * F
    if shared:
        shapes |= _linear("mlp.shared.gate", shared, D, bias=False)
        shapes |= _linear("mlp.shared.up", shared, D, bias=False)
        shapes |= _linear("mlp.shared.down", D, shared, bias=False)
    if config.shared_expert_gate:
        shapes |= _linear("mlp.shared_gate", 1, D, bias=False)
    return shapes


@dataclass(frozen=True)
class ParameterCount:
    """All parameters, and those that are neither token nor position embedding nor head."""

    total: int
    non_embedding: int
    inactive: int = 0
    """Those of the experts that a token does not take."""

    @property
    def active(self) -> int:
        """Those that one token uses (Jiang et al. 2024, Mixtral)."""
        return self.total - self.inactive


def _active(config: ModelConfig, name: str, size: int) -> int:
    """Of `size` numbers of parameter `name`, those that one token uses."""
    if ".mlp.experts." not in name:
        return size
    return size // config.num_experts * config.experts_per_token


def count_parameters(config: ModelConfig) -> ParameterCount:
    """Exact counts, equal to what the built model holds."""
    sizes = {name: math.prod(shape) for name, shape in parameter_shapes(config).items()}
    outside = sum(sizes.get(name, 0) for name in ("embedding.weight", "positions.weight", "head.weight"))
    total = sum(sizes.values())
    active = sum(_active(config, name, size) for name, size in sizes.items())
    return ParameterCount(total, total - outside, total - active)


@dataclass(frozen=True)
class Flops:
    """Floating-point operations per token, forward and backward.

    `full` counts the whole attention matrix (Chowdhery et al. 2022, PaLM, appendix B);
    `causal` counts the half of it that a causal mask leaves (Megatron-LM's convention), or the
    band that a sliding window leaves.
    """

    full: float
    causal: float


def flops_per_token(config: ModelConfig, context: int | None = None) -> Flops:
    """6 per matrix parameter in use (2 forward, 4 backward), plus 12 L H K T for attention scores and values.

    A latent's scores are K + R long and its values V: 6 L H (K + R + V) T.
    """
    matrices = sum(
        _active(config, name, math.prod(shape))
        for name, shape in parameter_shapes(config).items()
        if len(shape) >= 2 and name not in ("embedding.weight", "positions.weight")
    )
    if config.tie_embeddings and config.head == "lm":
        matrices += config.vocab_size * config.width
    T = context or config.context
    W = min(config.window or T, T)
    per_pair = config.head_size + config.rope_width + config.value_size
    attention = 6.0 * config.num_layers * config.num_heads * per_pair * T
    # Of T x T pairs a causal band of width W holds T W - W^2/2, the diagonal counted half.
    return Flops(6.0 * matrices + attention, 6.0 * matrices + attention * (W / T) * (1 - W / (2 * T)))


def kv_cache_bytes(config: ModelConfig, batch: int, tokens: int, bytes_per_value: int) -> int:
    """Bytes that decoding remembers of `tokens` tokens of `batch` sequences.

    2 l b n s h x bytes with n heads of keys and values of size h: all heads (MHA), one (MQA) or some
    (GQA). Latent attention keeps l b s (C + R) x bytes (DeepSeek-V2, 2024, table 1).
    """
    per_token = sum(heads * size for heads, size in config.cached_per_token)
    return config.num_layers * batch * tokens * per_token * bytes_per_value
