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

Shapes: B batch, T new tokens, S all tokens so far, D width, H heads, K head size without position,
R its rotary part, V value size, C latent size.
"""

import math

import torch
from torch import Tensor, nn

from models.attention import Angles, attend
from models.cache import LayerCache
from models.config import ModelConfig
from models.positions import rotate

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
        cache: LayerCache | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        assert angles is not None
        B, T, _ = x_BTD.shape
        H = self.config.num_heads
        from_BTC = self.query_latent_norm(self.query_latent(x_BTD))
        query_BHTK = self.query(from_BTC).view(B, T, H, -1).transpose(1, 2)
        rotary_BHTR = rotate(self.query_rotary(from_BTC).view(B, T, H, -1).transpose(1, 2), angles)
        latent_B1SC = self.latent_norm(self.latent(x_BTD)).unsqueeze(1)
        key_B1SR = rotate(self.key_rotary(x_BTD).unsqueeze(1), angles)
        remembered_B1SE = torch.cat((latent_B1SC, key_B1SR), dim=-1)
        if cache is not None:
            (remembered_B1SE,) = cache.extend(remembered_B1SE)
        # Keys and values are made once for tokens that are all new; past ones are attended to as latents.
        heads = self._expanded if remembered_B1SE.shape[2] == T else self._absorbed
        mixed_BHTV = heads(query_BHTK, rotary_BHTR, remembered_B1SE, mask)
        return self.output(mixed_BHTV.transpose(1, 2).reshape(B, T, -1))

    def _expanded(
        self, query_BHTK: Tensor, rotary_BHTR: Tensor, remembered_B1SE: Tensor, mask: Tensor | None
    ) -> Tensor:
        B, H, _, K = query_BHTK.shape
        latent_B1SC, key_B1SR = remembered_B1SE.split((self.config.latent_width, self.config.rope_width), -1)
        key_BHSK = self.key(latent_B1SC[:, 0]).view(B, -1, H, K).transpose(1, 2)
        value_BHSV = self.value(latent_B1SC[:, 0]).view(B, -1, H, self.config.value_size).transpose(1, 2)
        keys_BHSE = torch.cat((key_BHSK, key_B1SR.expand(-1, H, -1, -1)), dim=-1)
        queries_BHTE = torch.cat((query_BHTK, rotary_BHTR), dim=-1)
        return attend(queries_BHTE, keys_BHSE, value_BHSV, mask, self.scale)

    def _absorbed(
        self, query_BHTK: Tensor, rotary_BHTR: Tensor, remembered_B1SE: Tensor, mask: Tensor | None
    ) -> Tensor:
        H, C = self.config.num_heads, self.config.latent_width
        key_HKC, value_HVC = self.key.weight.view(H, -1, C), self.value.weight.view(H, -1, C)
        queries_BHTE = torch.cat((query_BHTK @ key_HKC, rotary_BHTR), dim=-1)
        latent_B1SC = remembered_B1SE[..., :C]
        mixed_BHTC = attend(queries_BHTE, remembered_B1SE, latent_B1SC, mask, self.scale)
        return mixed_BHTC @ value_HVC.transpose(1, 2)
