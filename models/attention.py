"""Multi-head, grouped-query and multi-query attention.

Shapes: B batch, T new tokens, S all tokens so far, D width, H heads, G heads of keys and values, K head size.
"""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from models.cache import LayerCache
from models.config import ModelConfig
from models.positions import rotate

Angles = tuple[Tensor, Tensor]
"""Cosines and sines of `models.positions.rotary_angles`."""


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


def score_scale(config: ModelConfig, size: int) -> float | None:
    """1 / (temperature sqrt(size)); None, which means 1/sqrt(size), without a temperature."""
    if config.attention_temperature == 1:
        return None
    return 1 / (config.attention_temperature * math.sqrt(size))


class Attention(nn.Module):
    """Causal self-attention (Vaswani et al. 2017).

    With fewer heads of keys and values it is grouped-query (Ainslie et al. 2023), with one it is
    multi-query attention (Shazeer 2019).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        D, K = config.width, config.head_size
        qkv_bias = config.bias or config.qkv_bias
        self.query = nn.Linear(D, config.num_heads * K, bias=qkv_bias)
        self.key = nn.Linear(D, config.kv_heads * K, bias=qkv_bias)
        self.value = nn.Linear(D, config.kv_heads * K, bias=qkv_bias)
        self.output = nn.Linear(config.num_heads * K, D, bias=config.bias)
        # Henry et al. 2020, "Query-key normalization", with the norm that Qwen3 takes.
        self.query_norm = nn.RMSNorm(K, eps=config.norm_eps) if config.qk_norm else None
        self.key_norm = nn.RMSNorm(K, eps=config.norm_eps) if config.qk_norm else None

    def forward(
        self,
        x_BTD: Tensor,
        angles: Angles | None = None,
        cache: LayerCache | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        B, T, _ = x_BTD.shape
        K = self.config.head_size
        query_BHTK = self.query(x_BTD).view(B, T, -1, K).transpose(1, 2)
        key_BGSK = self.key(x_BTD).view(B, T, -1, K).transpose(1, 2)
        value_BGSK = self.value(x_BTD).view(B, T, -1, K).transpose(1, 2)
        if self.query_norm is not None and self.key_norm is not None:
            query_BHTK, key_BGSK = self.query_norm(query_BHTK), self.key_norm(key_BGSK)
        if angles is not None:
            query_BHTK, key_BGSK = rotate(query_BHTK, angles), rotate(key_BGSK, angles)
        if cache is not None:
            key_BGSK, value_BGSK = cache.extend(key_BGSK, value_BGSK)
        mixed_BHTK = attend(query_BHTK, key_BGSK, value_BGSK, mask, score_scale(self.config, K))
        return self.output(mixed_BHTK.transpose(1, 2).reshape(B, T, -1))
