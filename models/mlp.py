"""Dense MLPs.

Shapes: B batch, T time, D width, F hidden width.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from models.config import ModelConfig


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

    def __init__(self, width: int, hidden_width: int, *, bias: bool) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden_width, bias=bias)
        self.up = nn.Linear(width, hidden_width, bias=bias)
        self.down = nn.Linear(hidden_width, width, bias=bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x_BTD)) * self.up(x_BTD))


def make_mlp(config: ModelConfig) -> nn.Module:
    """The dense MLP that the configuration names."""
    if config.mlp == "gelu":
        return GeluMLP(config)
    return SwiGLU(config.width, config.hidden_width, bias=config.bias)
