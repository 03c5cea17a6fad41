"""Multi-head, grouped-query and multi-query attention.

Shapes: B batch, T tokens, D width, H heads, G heads of keys and values, K head size.
"""

import math

from torch import Tensor, nn

from models.cache import LayerView
from models.config import ModelConfig
from models.mup import score_divisor
from models.positions import rotate
from models.scores import attend

Angles = tuple[Tensor, Tensor]
"""Cosines and sines of `models.positions.rotary_angles`."""


def score_scale(config: ModelConfig, size: int) -> float | None:
    """1 / (temperature sqrt(size)), muP's divisor counted in; None, which means 1/sqrt(size), without."""
    temperature = config.attention_temperature * score_divisor(config)
    return None if temperature == 1 else 1 / (temperature * math.sqrt(size))


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
        cache: LayerView | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        B, T, _ = x_BTD.shape
        K = self.config.head_size
        query_BHTK, key_BGTK, value_BGTK = (
            one.view(B, T, -1, K).transpose(1, 2) for one in self.projected(x_BTD)
        )
        if self.query_norm is not None and self.key_norm is not None:
            query_BHTK, key_BGTK = self.query_norm(query_BHTK), self.key_norm(key_BGTK)
        if angles is not None:
            query_BHTK, key_BGTK = rotate(query_BHTK, angles), rotate(key_BGTK, angles)
        scale = score_scale(self.config, K)
        if cache is None:
            mixed_BHTK = attend(query_BHTK, key_BGTK, value_BGTK, mask, scale)
        else:
            cache.write(key_BGTK, value_BGTK)
            mixed_BHTK = cache.attend(query_BHTK, scale)
        return self.output(mixed_BHTK.transpose(1, 2).reshape(B, T, -1))

    def projected(self, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, T, H K], [B, T, G K], [B, T, G K]: queries, keys and values."""
        return self.query(x_BTD), self.key(x_BTD), self.value(x_BTD)
