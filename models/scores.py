"""Scaled dot-product attention, for heads that have their own keys and values and for heads that share them.

Shapes: B batch, T queries, S keys, H heads, G heads of keys and values, K head size, V value size.
"""

import torch.nn.functional as F
from torch import Tensor


def attend(
    query_BHTK: Tensor,
    key_BGSK: Tensor,
    value_BGSV: Tensor,
    mask: Tensor | None,
    scale: float | None = None,
) -> Tensor:
    """softmax(q k^T x scale + mask) v, [B, H, T, V]; `scale` defaults to 1/sqrt(K).

    Without a mask, attention is causal when all tokens are new, and sees everything otherwise.
    """
    if mask is not None and mask.is_floating_point():
        mask = mask.to(query_BHTK.dtype)
    return F.scaled_dot_product_attention(
        query_BHTK,
        key_BGSK,
        value_BGSV,
        attn_mask=mask,
        is_causal=mask is None and query_BHTK.shape[2] == key_BGSK.shape[2],
        scale=scale,
        enable_gqa=query_BHTK.shape[1] != key_BGSK.shape[1],
    )
