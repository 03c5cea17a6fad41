"""How many bytes training a T5 holds in activations, and decoding in its cache; see models/accounting.py.

Attention over its own sequence is never fused, because its bias on scores is learnt; over the sources it is,
unless weights are dropped out.

Symbols: S source time, T target time, D width, A = H K heads times head size, F hidden width.
"""

from models.accounting import (
    FLOAT32,
    ActivationMemory,
    Block,
    Policy,
    in_flight,
    linear_inputs,
    logits_and_loss,
    rms_norm,
    under_policy,
    unfused_weights,
)
from models.t5.config import T5Config

INDEX_BYTES = 8


def activation_memory(
    config: T5Config,
    batch: int,
    *,
    bytes_per_value: int,
    policy: Policy = "none",
    num_chunks: int = 1,
    context: int | None = None,
    target_context: int | None = None,
) -> ActivationMemory:
    """Of `batch` sources of `context` tokens (the model's, unless given), and targets of `target_context`.

    Targets are as long as sources unless given; `bytes_per_value` and `num_chunks` are as for decoders.
    """
    S = context or config.context
    T = target_context or S
    D, value = config.width, bytes_per_value
    sources, targets = batch * S, batch * T
    encoder = Block(
        whole=sources * _encoder_block(config, S, value),
        products=sources * _products(config, value),
        inputs=sources * D * FLOAT32,
    )
    # In float32 all blocks read the one memory; otherwise each casts it for keys and for values.
    memory_again = 0 if value == FLOAT32 else sources * linear_inputs(D, 2, value)
    key_value = FLOAT32 if config.dropout else value
    cross_keys_values = sources * 2 * config.attention_width * key_value
    decoder = Block(
        whole=targets * _decoder_block(config, S, T, value) + cross_keys_values + memory_again,
        products=targets * (_products(config, value) + _cross_products(config, value)) + cross_keys_values,
        inputs=targets * D * FLOAT32,
    )
    blocks = [encoder] * config.num_layers + [decoder] * config.decoder_layers
    kept, recomputed = under_policy(blocks, policy)
    # Of both stacks: dropout of the embedding; buckets of all distances; the encoder's norm and the memory.
    kept += (sources + targets) * D * FLOAT32 if config.dropout else 0
    kept += (S * S + T * T) * INDEX_BYTES
    if policy != "none":
        # The inputs of all blocks of a stack: their bias on scores, which padding makes one for each source.
        kept += config.num_heads * (batch * S * S + T * T) * FLOAT32
    kept += sources * (rms_norm(D) + D * FLOAT32 * (2 if config.dropout else 1))
    last = rms_norm(D) + (D * FLOAT32 if config.dropout else 0) + D * value
    head = targets * last + logits_and_loss(targets, config.vocab_size, num_chunks)
    gradients = max(sources, targets) * in_flight(
        D, config.hidden_width, value, gated=config.mlp == "gated_gelu"
    )
    gradients += config.vocab_size * D * FLOAT32 if config.tie_embeddings else 0
    return ActivationMemory(kept, recomputed, head, gradients)


def _encoder_block(config: T5Config, S: int, value: int) -> int:
    """Bytes per source token."""
    return _own_attention(config, S, value) + _mlp(config, value)


def _decoder_block(config: T5Config, S: int, T: int, value: int) -> int:
    """Bytes per target token, less keys and values of the sources."""
    A, H = config.attention_width, config.num_heads
    cross = rms_norm(config.width) + linear_inputs(config.width, 1, value) + A * value
    if config.dropout:
        cross += A * FLOAT32 + unfused_weights(H, S, dropout=True)
    else:
        cross += A * value + H * FLOAT32
    return _own_attention(config, T, value) + cross + _dropout(config, value) + _mlp(config, value)


def _own_attention(config: T5Config, num_keys: int, value: int) -> int:
    """x before, within and after the norm; q, k, v; weights and the mixture."""
    A = config.attention_width
    kept = rms_norm(config.width) + linear_inputs(config.width, 3, value) + A * (value + 3 * FLOAT32)
    kept += unfused_weights(config.num_heads, num_keys, dropout=config.dropout > 0)
    return kept + _dropout(config, value)


def _mlp(config: T5Config, value: int) -> int:
    """ReLU keeps what it gives; the gated form gate, gelu(gate), up and their product.

    With dropout its noise and its result besides, the latter in place of the product.
    """
    F, gated = config.hidden_width, config.mlp == "gated_gelu"
    hidden = 4 if gated else 1
    if config.dropout:
        hidden += 1 if gated else 2
    kept = rms_norm(config.width) + linear_inputs(config.width, 2 if gated else 1, value)
    return kept + hidden * F * value + _dropout(config, value)


def _dropout(config: T5Config, value: int) -> int:
    """At the end of a sub-layer."""
    return config.width * value if config.dropout else 0


def _products(config: T5Config, value: int) -> int:
    """Bytes per token of what the linear layers of a block without cross-attention give."""
    up = 2 if config.mlp == "gated_gelu" else 1
    return (3 * config.attention_width + 2 * config.width + up * config.hidden_width) * value


def _cross_products(config: T5Config, value: int) -> int:
    """Bytes per target token of the query and the output, and of attention where it is fused."""
    fused = 0 if config.dropout else config.attention_width * value + config.num_heads * FLOAT32
    return (config.attention_width + config.width) * value + fused


def kv_cache_bytes(
    config: T5Config, batch: int, tokens: int, bytes_per_value: int, *, source_tokens: int | None = None
) -> int:
    """Bytes that decoding remembers of `tokens` targets and of `source_tokens` (as many, unless given).

    2 l b n s h x bytes of both: each block of the decoder has keys and values of the targets so far, and of
    the memory, which it computes once.
    """
    length = tokens + (tokens if source_tokens is None else source_tokens)
    return 2 * config.decoder_layers * batch * length * config.attention_width * bytes_per_value
