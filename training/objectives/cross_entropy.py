"""Weighted sums of cross-entropy over tokens, from logits or, chunk by chunk, from hidden states.

The loss of one token with logits z and target y, where Z = sum_v exp z_v and p_v = exp(z_v) / Z:

    (1 - e) (-log p_y) + e / V sum_v (-log p_v) + c (log Z)^2

e is label smoothing (Szegedy et al. 2016, "Rethinking the inception architecture", section 7); c is the
z-loss that keeps log Z near zero (Chowdhery et al. 2022, PaLM, section 5, where c = 1e-4). Both are zero
unless asked for, and what is left is -log p_y.

Shapes: B batch, T time, D width, V vocabulary, N tokens of a chunk.
"""

import torch.nn.functional as F
from torch import Tensor

from training.objectives import LossSum
from training.objectives.chunks import sum_over_chunks


def cross_entropy(
    logits: Tensor, targets: Tensor, weights: Tensor, *, label_smoothing: float = 0.0, z_loss: float = 0.0
) -> LossSum:
    """Of logits [..., V], targets [...] and weights [...]; in float32 whatever the logits are."""
    logits_NV, weights_N = logits.flatten(0, -2).float(), weights.flatten()
    losses_N = F.cross_entropy(
        logits_NV, targets.flatten(), reduction="none", label_smoothing=label_smoothing
    )
    if z_loss:
        losses_N = losses_N + z_loss * logits_NV.logsumexp(dim=-1).square()
    return LossSum((losses_N * weights_N).sum(), weights_N.sum())


def chunked_cross_entropy(
    hidden_BTD: Tensor,
    head_weight_VD: Tensor,
    targets_BT: Tensor,
    weights_BT: Tensor,
    *,
    num_chunks: int,
    bias_V: Tensor | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> LossSum:
    """`cross_entropy` of hidden W^T + bias, with the logits of one chunk of tokens in memory at a time.

    Same loss and gradients up to the order of additions, and the same number of operations.
    """

    def loss(logits_NV: Tensor, targets_N: Tensor, weights_N: Tensor) -> Tensor:
        return cross_entropy(
            logits_NV, targets_N, weights_N, label_smoothing=label_smoothing, z_loss=z_loss
        ).total

    rows = (targets_BT.flatten(), weights_BT.flatten())
    total = sum_over_chunks(
        loss, hidden_BTD.flatten(0, -2), head_weight_VD, bias_V, rows, num_chunks=num_chunks
    )
    return LossSum(total, weights_BT.sum())
