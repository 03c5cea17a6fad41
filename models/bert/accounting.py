"""How many bytes of activations training an encoder holds; policies as in models/accounting.py.

Symbols: T time, D width, E embedding width, H heads, F hidden width.
"""

import math

from models.accounting import (
    FLOAT32,
    ActivationMemory,
    Block,
    Policy,
    in_flight,
    layer_norm,
    linear_inputs,
    logits_and_loss,
    under_policy,
    unfused_weights,
)
from models.bert.config import HEADS_ON_POOLER, EncoderConfig
from models.bert.sizes import NUM_PAIR_CLASSES, NUM_SPAN_ENDS

BERT_MASKED_SHARE = 0.15


def activation_memory(
    config: EncoderConfig,
    batch: int,
    *,
    bytes_per_value: int,
    policy: Policy = "none",
    num_chunks: int = 1,
    context: int | None = None,
    predicted: float = BERT_MASKED_SHARE,
) -> ActivationMemory:
    """Of `batch` sequences of `context` tokens (the model's, unless given).

    `bytes_per_value` and `num_chunks` as for decoders; `predicted` is the share of tokens that a masked-LM
    head sees. Layers that share their parameters keep their activations all the same.
    """
    T = context or config.context
    tokens = batch * T
    block = Block(
        whole=_whole_block(config, T, bytes_per_value),
        products=_products(config, bytes_per_value),
        inputs=config.width * FLOAT32,
    )
    kept, recomputed = under_policy([block] * config.num_layers, policy)
    kept += layer_norm(config.embedding_size)
    kept += config.embedding_size * FLOAT32 if config.dropout else 0
    kept += config.embedding_size * bytes_per_value if config.embedding_width else 0
    head = _head(config, batch, T, math.ceil(tokens * predicted), bytes_per_value, num_chunks)
    gradients = tokens * in_flight(config.width, config.hidden_width, bytes_per_value, gated=False)
    if config.head in ("masked_lm", "pretraining"):
        gradients += config.vocab_size * config.embedding_size * FLOAT32
    return ActivationMemory(kept * tokens, recomputed * tokens, head, gradients)


def _whole_block(config: EncoderConfig, T: int, value: int) -> int:
    """Bytes per token: x; q, k, v; their mixture; x; before and after the activation; noise of dropout."""
    D, F, H = config.width, config.hidden_width, config.num_heads
    attention = linear_inputs(D, 3, value) + D * value
    if config.attention_dropout:
        attention += 3 * D * FLOAT32 + unfused_weights(H, T, dropout=True)
    else:
        attention += 3 * D * value + H * FLOAT32
    # ReLU keeps what it gives, which is what the next layer reads.
    mlp = linear_inputs(D, 1, value) + (1 if config.activation == "relu" else 2) * F * value
    dropout = 2 * D * value if config.dropout else 0
    return attention + mlp + dropout + 2 * layer_norm(D)


def _products(config: EncoderConfig, value: int) -> int:
    """Bytes per token of what the linear layers give, and of attention where it is fused."""
    linear = (5 * config.width + config.hidden_width) * value
    return linear + (0 if config.attention_dropout else config.width * value + config.num_heads * FLOAT32)


def _head(config: EncoderConfig, batch: int, T: int, num_predicted: int, value: int, num_chunks: int) -> int:
    """Bytes from the last hidden states to the loss."""
    D, E, head = config.width, config.embedding_size, config.head
    total = 0
    if head in ("masked_lm", "pretraining"):
        # The states that are picked; before and after the activation and the norm; then logits.
        per_token = linear_inputs(D, 1, value) + E * value + layer_norm(E) + E * value
        total += num_predicted * per_token + logits_and_loss(num_predicted, config.vocab_size, num_chunks)
    if head == "token_classification":
        total += batch * T * D * value + logits_and_loss(batch * T, config.num_labels)
    if head == "span":
        total += batch * T * D * value + logits_and_loss(batch * T, NUM_SPAN_ENDS)
    if head in HEADS_ON_POOLER:
        num_classes = {"pretraining": NUM_PAIR_CLASSES, "sequence_classification": config.num_labels}
        total += batch * 2 * D * value + logits_and_loss(batch, num_classes.get(head, 1))
    return total
