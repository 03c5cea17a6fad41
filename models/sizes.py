"""How large a model is and what it costs, by arithmetic alone: no torch, nothing built."""

import math
from dataclasses import dataclass

from models.config import ModelConfig


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Canonical name -> shape of every parameter."""
    D, F, V = config.width, config.hidden_width, config.vocab_size
    kv = config.kv_heads * config.head_size
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (V, D)}
    if config.positions == "learned":
        shapes["positions.weight"] = (config.context, D)
    linears = {
        "attention.query": (D, D),
        "attention.key": (kv, D),
        "attention.value": (kv, D),
        "attention.output": (D, D),
    }
    if config.mlp == "swiglu":
        linears["mlp.gate"] = (F, D)
    linears |= {"mlp.up": (F, D), "mlp.down": (D, F)}
    norm_bias = config.norm == "layer" and config.bias
    for i in range(config.num_layers):
        for name, shape in linears.items():
            shapes[f"blocks.{i}.{name}.weight"] = shape
            if config.bias:
                shapes[f"blocks.{i}.{name}.bias"] = shape[:1]
        for name in ("attention_norm", "mlp_norm"):
            shapes[f"blocks.{i}.{name}.weight"] = (D,)
            if norm_bias:
                shapes[f"blocks.{i}.{name}.bias"] = (D,)
    shapes["norm.weight"] = (D,)
    if norm_bias:
        shapes["norm.bias"] = (D,)
    if not config.tie_embeddings:
        shapes["head.weight"] = (V, D)
    return shapes


@dataclass(frozen=True)
class ParameterCount:
    """All parameters, and those that are neither token nor position embedding nor head."""

    total: int
    non_embedding: int


def count_parameters(config: ModelConfig) -> ParameterCount:
    """Exact counts, equal to what the built model holds."""
    sizes = {name: math.prod(shape) for name, shape in parameter_shapes(config).items()}
    outside = sum(sizes.get(name, 0) for name in ("embedding.weight", "positions.weight", "head.weight"))
    return ParameterCount(sum(sizes.values()), sum(sizes.values()) - outside)


@dataclass(frozen=True)
class Flops:
    """Floating-point operations per token, forward and backward.

    `full` counts the whole attention matrix (Chowdhery et al. 2022, PaLM, appendix B);
    `causal` counts the half of it that a causal mask leaves (Megatron-LM's convention).
    """

    full: float
    causal: float


def flops_per_token(config: ModelConfig, context: int | None = None) -> Flops:
    """6 per matrix parameter (2 forward, 4 backward), plus 12 L D T for attention scores and values."""
    matrices = sum(
        math.prod(shape)
        for name, shape in parameter_shapes(config).items()
        if len(shape) == 2 and name not in ("embedding.weight", "positions.weight")
    )
    if config.tie_embeddings:
        matrices += config.vocab_size * config.width
    attention = 12.0 * config.num_layers * config.width * (context or config.context)
    return Flops(6.0 * matrices + attention, 6.0 * matrices + attention / 2)


def activation_bytes(config: ModelConfig, batch: int, *, bytes_per_value: int) -> tuple[int, int]:
    """(saved by the blocks, held for logits and loss) of one micro-batch, in bytes.

    Counts the tensors that autograd keeps when nothing is recomputed: per block, both norms'
    inputs and outputs, queries, keys, values, the mixed heads, and the MLP's hidden tensors; at
    the end the logits, their fp32 log-softmax and the gradient that both give rise to.
    """
    D, F, T = config.width, config.hidden_width, config.context
    kv = config.kv_heads * config.head_size
    hidden_tensors = 2 if config.mlp == "gelu" else 4
    residual = 2 * D * 4
    per_token = residual + (2 * D + 2 * D + 2 * kv + hidden_tensors * F) * bytes_per_value
    if config.dropout:
        per_token += 2 * D
    blocks = config.num_layers * per_token * batch * T
    logits = batch * T * config.vocab_size * (bytes_per_value + 4 + 4)
    return blocks, logits
