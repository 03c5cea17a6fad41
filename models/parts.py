"""The small parts that blocks are built from: norms, rotary positions, MLPs, attention.

Shapes: B batch, T time, D width, H heads, G heads of keys and values, K head size, F hidden width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import ModelConfig


class LayerCache:
    """Keys and values of one layer for the positions seen so far, in a fixed buffer."""

    def __init__(self, batch: int, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> None:
        shape = (batch, config.kv_heads, config.context, config.head_size)
        self.keys_BGTK = torch.zeros(shape, device=device, dtype=dtype)
        self.values_BGTK = torch.zeros(shape, device=device, dtype=dtype)
        self.length = 0

    def extend(self, keys_BGTK: Tensor, values_BGTK: Tensor) -> tuple[Tensor, Tensor]:
        """Append the new positions; returns all keys and values so far."""
        end = self.length + keys_BGTK.shape[2]
        self.keys_BGTK[:, :, self.length : end] = keys_BGTK
        self.values_BGTK[:, :, self.length : end] = values_BGTK
        self.length = end
        return self.keys_BGTK[:, :, :end], self.values_BGTK[:, :, :end]


def make_norm(config: ModelConfig) -> nn.Module:
    """LayerNorm (Ba et al. 2016) or RMSNorm (Zhang and Sennrich 2019) over D."""
    if config.norm == "rms":
        return nn.RMSNorm(config.width, eps=config.norm_eps)
    return nn.LayerNorm(config.width, eps=config.norm_eps, bias=config.bias)


def document_mask(documents_BT: Tensor) -> Tensor:
    """[B, 1, T, T]: whether query t may see key s: not later than t, and of the same document."""
    same_BTT = documents_BT.unsqueeze(2) == documents_BT.unsqueeze(1)
    return same_BTT.tril().unsqueeze(1)


def rotary_angles(positions: Tensor, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines of position x frequency (Su et al. 2021, RoFormer).

    Positions are [T], giving [T, K], or [B, T], giving [B, 1, T, K].

    Frequencies are base^(-2i/K) for i in 0..K/2-1, laid out twice, for the half-rotation form.
    """
    exponents = torch.arange(0, config.head_size, 2, device=positions.device) / config.head_size
    angles = positions.float().unsqueeze(-1) * config.rope_base**-exponents
    angles = torch.cat((angles, angles), dim=-1)
    if positions.dim() == 2:
        angles = angles.unsqueeze(1)
    return angles.cos(), angles.sin()


def rotate(x_BHTK: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair (x_i, x_{i+K/2}) by its angle."""
    cosines, sines = angles
    first, second = x_BHTK.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return (x_BHTK * cosines + turned * sines).to(x_BHTK.dtype)


class Attention(nn.Module):
    """Causal self-attention with as many or fewer heads of keys and values (Ainslie et al. 2023)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        kv_width = config.kv_heads * config.head_size
        self.query = nn.Linear(config.width, config.width, bias=config.bias)
        self.key = nn.Linear(config.width, kv_width, bias=config.bias)
        self.value = nn.Linear(config.width, kv_width, bias=config.bias)
        self.output = nn.Linear(config.width, config.width, bias=config.bias)

    def forward(
        self,
        x_BTD: Tensor,
        angles: tuple[Tensor, Tensor] | None = None,
        cache: LayerCache | None = None,
        mask_B1TT: Tensor | None = None,
    ) -> Tensor:
        B, T, D = x_BTD.shape
        K = self.config.head_size
        query_BHTK = self.query(x_BTD).view(B, T, -1, K).transpose(1, 2)
        key_BGTK = self.key(x_BTD).view(B, T, -1, K).transpose(1, 2)
        value_BGTK = self.value(x_BTD).view(B, T, -1, K).transpose(1, 2)
        if angles is not None:
            query_BHTK, key_BGTK = rotate(query_BHTK, angles), rotate(key_BGTK, angles)
        mask, is_causal = mask_B1TT, mask_B1TT is None
        if cache is not None:
            past = cache.length
            key_BGTK, value_BGTK = cache.extend(key_BGTK, value_BGTK)
            if past:
                is_causal = False
                if T > 1:
                    mask = torch.ones(T, past + T, dtype=torch.bool, device=x_BTD.device).tril(past)
        mixed_BHTK = F.scaled_dot_product_attention(
            query_BHTK,
            key_BGTK,
            value_BGTK,
            attn_mask=mask,
            is_causal=is_causal,
            enable_gqa=self.config.kv_heads != self.config.num_heads,
        )
        return self.output(mixed_BHTK.transpose(1, 2).reshape(B, T, D))


class GeluMLP(nn.Module):
    """W_2 gelu(W_1 x), the tanh form of GELU (Hendrycks and Gimpel 2016) that GPT-2 uses."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.width, config.hidden_width, bias=config.bias)
        self.down = nn.Linear(config.hidden_width, config.width, bias=config.bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x_BTD), approximate="tanh"))


class SwiGLU(nn.Module):
    """W_2 (silu(W_g x) * W_1 x) (Shazeer 2020, "GLU variants improve transformer")."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.width, config.hidden_width, bias=config.bias)
        self.up = nn.Linear(config.width, config.hidden_width, bias=config.bias)
        self.down = nn.Linear(config.hidden_width, config.width, bias=config.bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x_BTD)) * self.up(x_BTD))


def make_mlp(config: ModelConfig) -> nn.Module:
    """The MLP that the configuration names."""
    return GeluMLP(config) if config.mlp == "gelu" else SwiGLU(config)
