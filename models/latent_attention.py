"""Multi-head latent attention with decoupled rotary positions (DeepSeek-V2, 2024, section 2.1).

Keys and values of all heads are projections of one small latent, so that decoding need remember
only the latent and one rotated key that the heads share. In the paper's symbols:

    c^Q = W^DQ h          q^C = W^UQ c^Q     q^R = RoPE(W^QR c^Q)     q_i = [q^C_i; q^R_i]
    c^KV = W^DKV h        k^C = W^UK c^KV    k^R = RoPE(W^KR h)       k_i = [k^C_i; k^R]
    v^C = W^UV c^KV       o_i = softmax(q_i^T k_i / sqrt(K + R)) v^C_i

(the released models normalise c^Q and c^KV besides). The rotation stands between W^UQ and W^UK
and would keep them apart; carried by dimensions of its own, it does not, and

    q^C_i . k^C_i = (W^UK_i^T q^C_i) . c^KV

so that past latents are attended to directly: multi-query attention with one head of size C + R.

Shapes: B batch, T new tokens, D width, H heads, K head size without position,
R its rotary part, V value size, C latent size.
"""

import math

import torch
from torch import Tensor, nn

from models.attention import Angles
from models.cache import LayerView
from models.config import ModelConfig
from models.positions import rotate
from models.scores import attend

# Of the norms of latents; DeepSeek-V2 keeps it apart from the one of the residual stream.
LATENT_NORM_EPS = 1e-6


class LatentAttention(nn.Module):
    """Causal self-attention through a latent of keys and values."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        D, H, C, R = config.width, config.num_heads, config.latent_width, config.rope_width
        query_from = config.query_latent_width or D
        if config.query_latent_width:
            self.query_latent: nn.Module = nn.Linear(D, query_from, bias=False)
            self.query_latent_norm: nn.Module = nn.RMSNorm(query_from, eps=LATENT_NORM_EPS)
        else:
            self.query_latent, self.query_latent_norm = nn.Identity(), nn.Identity()
        self.query = nn.Linear(query_from, H * config.head_size, bias=False)
        self.query_rotary = nn.Linear(query_from, H * R, bias=False)
        self.latent = nn.Linear(D, C, bias=False)
        self.latent_norm = nn.RMSNorm(C, eps=LATENT_NORM_EPS)
        self.key_rotary = nn.Linear(D, R, bias=False)
        self.key = nn.Linear(C, H * config.head_size, bias=False)
        self.value = nn.Linear(C, H * config.value_size, bias=False)
        self.output = nn.Linear(H * config.value_size, D, bias=False)
        self.scale = 1 / (config.attention_temperature * math.sqrt(config.head_size + R))

    def forward(
        self,
        x_BTD: Tensor,
        angles: Angles | None = None,
        cache: LayerView | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        assert angles is not None
        B, T, _ = x_BTD.shape
        H = self.config.num_heads
        from_BTC = self.query_latent_norm(self.query_latent(x_BTD))
        query_BHTK = self.query(from_BTC).view(B, T, H, -1).transpose(1, 2)
        rotary_BHTR = rotate(self.query_rotary(from_BTC).view(B, T, H, -1).transpose(1, 2), angles)
        latent_B1TC = self.latent_norm(self.latent(x_BTD)).unsqueeze(1)
        key_B1TR = rotate(self.key_rotary(x_BTD).unsqueeze(1), angles)
        if cache is not None:
            cache.write(torch.cat((latent_B1TC, key_B1TR), dim=-1))
        # Keys and values are made once for tokens that are all new; past ones are attended to as latents.
        if cache is None or cache.is_fresh:
            queries_BHTE = torch.cat((query_BHTK, rotary_BHTR), dim=-1)
            keys_BHTE, value_BHTV = self._expanded(latent_B1TC, key_B1TR)
            if cache is None:
                mixed_BHTV = attend(queries_BHTE, keys_BHTE, value_BHTV, mask, self.scale)
            else:
                mixed_BHTV = cache.attend_new(queries_BHTE, keys_BHTE, value_BHTV, self.scale)
        else:
            queries_BHTE = torch.cat((self.to_latent(query_BHTK), rotary_BHTR), dim=-1)
            mixed_BHTC = cache.attend(queries_BHTE, self.scale, self.config.latent_width)
            mixed_BHTV = self.from_latent(mixed_BHTC)
        return self.output(mixed_BHTV.transpose(1, 2).reshape(B, T, -1))

    def to_latent(self, query_BHTK: Tensor) -> Tensor:
        """W^UK_i^T q^C_i for every head i, [B, H, T, C]."""
        return query_BHTK @ self.key.weight.view(self.config.num_heads, -1, self.config.latent_width)

    def from_latent(self, mixed_BHTC: Tensor) -> Tensor:
        """W^UV_i applied to what head i took from the latents, [B, H, T, V]."""
        value_HVC = self.value.weight.view(self.config.num_heads, -1, self.config.latent_width)
        return mixed_BHTC @ value_HVC.transpose(1, 2)

    def _expanded(self, latent_B1TC: Tensor, key_B1TR: Tensor) -> tuple[Tensor, Tensor]:
        """k and v of all heads: [B, H, T, K + R] and [B, H, T, V]."""
        B, _, T, _ = latent_B1TC.shape
        H, latent_BTC = self.config.num_heads, latent_B1TC[:, 0]
        key_BHTK = self.key(latent_BTC).view(B, T, H, -1).transpose(1, 2)
        value_BHTV = self.value(latent_BTC).view(B, T, H, -1).transpose(1, 2)
        return torch.cat((key_BHTK, key_B1TR.expand(-1, H, -1, -1)), dim=-1), value_BHTV
