"""How many bytes of activations training holds, by what is kept for the backward and what is recomputed.

For decoders; encoders are in models/bert/accounting.py and T5 in models/t5/accounting.py, made of the parts
that are public here. Policies for blocks (Korthikanti et al. 2022, "Reducing activation recomputation in
large transformer models", counted anew for these blocks):

    none        everything that autograd asks for; nothing is recomputed
    selective   the block's input and what is dear to compute: the results of linear layers and of fused
                attention; norms, activations, products and sums are recomputed
    full        the block's input; the whole block is recomputed

Attention is fused and keeps no T x T scores, unless weights are dropped out or a bias on scores is learnt.

Counted as PyTorch's CPU kernels keep it; fused norms and dropout of a GPU keep somewhat less. With values of
2 bytes (autocast), the residual stream and norms are float32, every linear layer casts its input for itself,
and the casts of the weights are not counted; nor are masks of packed documents.

Symbols: T time, D width, H heads, G heads of keys and values, K head size, F hidden width; with latent
attention Q and C latents of queries and of keys and values, R rotary part and V value size of a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from models.config import ModelConfig

Policy = Literal["none", "selective", "full"]
FLOAT32 = 4


@dataclass(frozen=True)
class ActivationMemory:
    """Bytes of one micro-batch."""

    blocks: int
    """Kept by the forward of the embedding and the blocks until their backward."""
    recomputed: int
    """What one block adds to that while it is computed again."""
    head: int
    """From the last norm to the loss: most of it logits, their log-softmax and their gradient."""
    in_flight: int
    """Gradients of activations within the backward of one block, and the head's own, where it is tied: that
    waits for the embedding's."""

    @property
    def peak(self) -> int:
        """The head's part is gone before the backward of the last block."""
        return self.blocks + max(self.recomputed + self.in_flight, self.head)


def activation_memory(
    config: ModelConfig,
    batch: int,
    *,
    bytes_per_value: int,
    policy: Policy = "none",
    num_chunks: int = 1,
    context: int | None = None,
) -> ActivationMemory:
    """Of `batch` sequences of `context` tokens (the model's, unless given).

    `bytes_per_value` is 4 in float32 and 2 under autocast to bfloat16; `num_chunks` is that of the chunked
    cross-entropy.
    """
    tokens = batch * (context or config.context)
    blocks = [
        Block(
            whole=_whole_block(config, layer, bytes_per_value),
            products=_products(config, layer, bytes_per_value),
            inputs=config.width * FLOAT32,
        )
        for layer in range(config.num_layers)
    ]
    kept, recomputed = under_policy(blocks, policy)
    kept += config.width * bytes_per_value if config.dropout else 0
    last_norm = _norm(config) if config.norm_placement == "pre" else 0
    head = tokens * (last_norm + config.width * bytes_per_value)
    head += logits_and_loss(tokens, config.vocab_size, num_chunks)
    head_gradient = config.vocab_size * config.width * FLOAT32
    if num_chunks > 1:
        head += _sum_of_head_gradients(head_gradient, logits_and_loss(tokens, config.vocab_size, num_chunks))
    gradients = tokens * max(_in_flight(config, layer, bytes_per_value) for layer in range(config.num_layers))
    gradients += head_gradient if config.tie_embeddings else 0
    return ActivationMemory(kept * tokens, recomputed * tokens, head, gradients)


class Block(NamedTuple):
    """Bytes of one block's activations, or bytes per token."""

    whole: int
    """All that autograd asks for."""
    products: int
    """The results that `selective` keeps."""
    inputs: int
    """What the block can be computed from again."""


def under_policy(blocks: Sequence[Block], policy: Policy) -> tuple[int, int]:
    """(kept by all blocks, added while one of them is recomputed)."""
    if policy == "none":
        return sum(block.whole for block in blocks), 0
    is_selective = policy == "selective"
    each = [block.inputs + is_selective * block.products for block in blocks]
    return sum(each), max(0, *(block.whole - kept for block, kept in zip(blocks, each, strict=True)))


def logits_and_loss(num_predicted: int, num_classes: int, num_chunks: int = 1) -> int:
    """Bytes of the log-softmax of logits, its gradient and theirs; on the way there are fewer."""
    return -(-num_predicted // num_chunks) * num_classes * 3 * FLOAT32


def _sum_of_head_gradients(gradient: int, chunk: int) -> int:
    """Bytes beside a chunk's logits: the sum over chunks, and what is added when two thirds are gone."""
    return gradient + max(0, gradient - chunk * 2 // 3)


def in_flight(width: int, hidden_width: int, value: int, *, gated: bool) -> int:
    """Bytes per token of gradients within an MLP's backward: the residual stream's and the hidden layer's.

    At the activation function the hidden layer has two, at the product of a gated one three; what it gave has
    been dropped by then.
    """
    return width * FLOAT32 + (2 if gated else 1) * hidden_width * value


def layer_norm(width: int) -> int:
    """Bytes per token: the input and two statistics."""
    return width * FLOAT32 + 2 * FLOAT32


def rms_norm(width: int) -> int:
    """Bytes per token: the input, the normalised vector and one statistic."""
    return 2 * width * FLOAT32 + FLOAT32


def linear_inputs(width: int, num_linears: int, value: int) -> int:
    """Bytes per token of what several linear layers read: shared in float32, cast for each otherwise."""
    return width * value * (1 if value == FLOAT32 else num_linears)


def unfused_weights(num_heads: int, num_keys: int, *, dropout: bool) -> int:
    """Bytes per query of a weight for each key: float32 even under autocast, as queries, keys and values are.

    With dropout there are the weights before it, what they are multiplied by, and the weights after it.
    """
    return num_heads * num_keys * FLOAT32 * (3 if dropout else 1)


def _norm(config: ModelConfig) -> int:
    return rms_norm(config.width) if config.norm == "rms" else layer_norm(config.width)


def _whole_block(config: ModelConfig, layer: int, value: int) -> int:
    """Bytes per token that autograd keeps of one block."""
    dropout = 2 * config.width * value if config.dropout else 0
    attention = _latent_attention(config, value) if config.latent_width else _attention(config, value)
    return 2 * _norm(config) + attention + _mlp(config, layer, value) + dropout


def _attention(config: ModelConfig, value: int) -> int:
    """x; q, k, v; their mixture; the logarithm of each row's sum.

    With normalised heads also q and k before and within the norm, and a mixture that has to be reordered.
    """
    H, G, K = config.num_heads, config.kv_heads, config.head_size
    kept = linear_inputs(config.width, 3, value) + (2 * H * K + 2 * G * K) * value + H * FLOAT32
    if config.qk_norm:
        kept += (H + G) * (K * (value + FLOAT32) + FLOAT32) + H * K * value
    return kept


def _latent_attention(config: ModelConfig, value: int) -> int:
    """As with normalised heads, and both latents before, within and after their norms."""
    D, H, Q, C = config.width, config.num_heads, config.query_latent_width, config.latent_width
    size = config.head_size + config.rope_width
    kept = linear_inputs(D, 3 if Q else 4, value) + H * FLOAT32
    if Q:
        kept += Q * (value + FLOAT32) + linear_inputs(Q, 2, value)
    kept += C * (value + FLOAT32) + linear_inputs(C + config.rope_width, 2, value)
    return kept + (2 * H * size + 3 * H * config.value_size) * value


def _mlp(config: ModelConfig, layer: int, value: int) -> int:
    """GELU: x, before and after it. SwiGLU: x, gate, silu(gate), up and their product.

    Experts: the same for each that is chosen, and its result before and after weighting.
    """
    D = config.width
    if config.mlp == "gelu":
        return linear_inputs(D, 1, value) + 2 * config.hidden_width * value
    if not config.has_experts(layer):
        return linear_inputs(D, 2, value) + 4 * config.hidden_width * value
    F, chosen = config.expert_hidden_width, config.experts_per_token
    routed = chosen * (linear_inputs(D, 2, value) + (4 * F + 2 * D) * value)
    gated = (D + 1) * value if config.shared_expert_gate else 0
    return linear_inputs(D, 1, value) + routed + 4 * config.num_shared_experts * F * value + gated


def _in_flight(config: ModelConfig, layer: int, value: int) -> int:
    """Bytes per token of gradients within one block's backward."""
    if not config.has_experts(layer):
        return in_flight(config.width, config.hidden_width, value, gated=config.mlp != "gelu")
    hidden = config.experts_per_token * config.expert_hidden_width
    return in_flight(config.width, hidden, value, gated=True)


def _products(config: ModelConfig, layer: int, value: int) -> int:
    """Bytes per token of the results of one block's matrix products and of its attention."""
    D, H, G, K = config.width, config.num_heads, config.kv_heads, config.head_size
    if config.latent_width:
        R, V = config.rope_width, config.value_size
        attention = config.query_latent_width + H * (K + R) + config.latent_width + R + H * (K + 2 * V) + D
    else:
        attention = 2 * H * K + 2 * G * K + D
    num_matrices = 1 if config.mlp == "gelu" else 2
    mlp = num_matrices * config.hidden_width + D
    if config.has_experts(layer):
        routed = config.experts_per_token * (2 * config.expert_hidden_width + D) + config.num_experts
        shared = 2 * config.num_shared_experts * config.expert_hidden_width
        mlp = routed + shared + (D if config.num_shared_experts else 0) + config.shared_expert_gate
    return (attention + mlp) * value + H * FLOAT32
