"""How many bytes of activations training holds, by what is kept for the backward and what is recomputed.

Policies for blocks (Korthikanti et al. 2022, "Reducing activation recomputation in large transformer
models", counted anew for these blocks, whose attention is fused and keeps no T x T scores):

    none        everything that autograd asks for; nothing is recomputed
    selective   the block's input and what is dear to compute: the results of matrix products and attention;
                norms, activations, products and sums are recomputed
    full        the block's input; the whole block is recomputed

Counted as PyTorch's CPU kernels keep it; fused norms and dropout of a GPU keep somewhat less. With values of
2 bytes (autocast), the residual stream and norms are float32, every linear layer casts its input for itself,
and the casts of the weights are not counted; nor are masks of packed documents, nor the few gradients of
activations that are in flight at a time.

Symbols: T time, D width, H heads, G heads of keys and values, K head size, F hidden width; with latent
attention Q and C latents of queries and of keys and values, R rotary part and V value size of a head.
"""

from dataclasses import dataclass
from typing import Literal

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

    @property
    def peak(self) -> int:
        """The head's part is gone before the first block is recomputed."""
        return self.blocks + max(self.recomputed, self.head)


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
    block_input = config.width * FLOAT32
    whole = [_whole_block(config, layer, bytes_per_value) for layer in range(config.num_layers)]
    if policy == "none":
        kept, recomputed = sum(whole), 0
    elif policy == "selective":
        products = [_products(config, layer, bytes_per_value) for layer in range(config.num_layers)]
        kept = sum(products) + config.num_layers * block_input
        recomputed = max(w - p for w, p in zip(whole, products, strict=True)) - block_input
    else:
        kept, recomputed = config.num_layers * block_input, max(whole) - block_input
    kept += config.width * bytes_per_value if config.dropout else 0
    # Their log-softmax, its gradient and theirs; on the way there fewer.
    logits = -(-tokens // num_chunks) * config.vocab_size * 3 * FLOAT32
    last_norm = _norm(config) if config.norm_placement == "pre" else 0
    head = tokens * (last_norm + config.width * bytes_per_value) + logits
    return ActivationMemory(kept * tokens, max(0, recomputed) * tokens, head)


def _norm(config: ModelConfig) -> int:
    """Bytes per token: the input and one statistic, or two; RMSNorm keeps the normalised vector besides."""
    if config.norm == "rms":
        return 2 * config.width * FLOAT32 + FLOAT32
    return config.width * FLOAT32 + 2 * FLOAT32


def _whole_block(config: ModelConfig, layer: int, value: int) -> int:
    """Bytes per token that autograd keeps of one block."""
    dropout = 2 * config.width * value if config.dropout else 0
    attention = _latent_attention(config, value) if config.latent_width else _attention(config, value)
    return 2 * _norm(config) + attention + _mlp(config, layer, value) + dropout


def _inputs(width: int, num_linears: int, value: int) -> int:
    """Bytes per token of what several linear layers read: shared in float32, cast for each otherwise."""
    return width * value * (1 if value == FLOAT32 else num_linears)


def _attention(config: ModelConfig, value: int) -> int:
    """x; q, k, v; their mixture; the logarithm of each row's sum.

    With normalised heads also q and k before and within the norm, and a mixture that has to be reordered.
    """
    H, G, K = config.num_heads, config.kv_heads, config.head_size
    kept = _inputs(config.width, 3, value) + (2 * H * K + 2 * G * K) * value + H * FLOAT32
    if config.qk_norm:
        kept += (H + G) * (K * (value + FLOAT32) + FLOAT32) + H * K * value
    return kept


def _latent_attention(config: ModelConfig, value: int) -> int:
    """As with normalised heads, and both latents before, within and after their norms."""
    D, H, Q, C = config.width, config.num_heads, config.query_latent_width, config.latent_width
    size = config.head_size + config.rope_width
    kept = _inputs(D, 3 if Q else 4, value) + H * FLOAT32
    if Q:
        kept += Q * (value + FLOAT32) + _inputs(Q, 2, value)
    kept += C * (value + FLOAT32) + _inputs(C + config.rope_width, 2, value)
    return kept + (2 * H * size + 3 * H * config.value_size) * value


def _mlp(config: ModelConfig, layer: int, value: int) -> int:
    """GELU: x, before and after it. SwiGLU: x, gate, silu(gate), up and their product.

    Experts: the same for each that is chosen, and its result before and after weighting.
    """
    D = config.width
    if config.mlp == "gelu":
        return _inputs(D, 1, value) + 2 * config.hidden_width * value
    if not config.has_experts(layer):
        return _inputs(D, 2, value) + 4 * config.hidden_width * value
    F, chosen = config.expert_hidden_width, config.experts_per_token
    routed = chosen * (_inputs(D, 2, value) + (4 * F + 2 * D) * value)
    return _inputs(D, 1, value) + routed + 4 * config.num_shared_experts * F * value


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
        mlp = routed + shared + (D if config.num_shared_experts else 0)
    return (attention + mlp) * value + H * FLOAT32
