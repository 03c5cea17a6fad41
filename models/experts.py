"""A sparse mixture of experts in the place of an MLP; no token is ever dropped.

    y = sum_{e in chosen} g_e expert_e(x) + shared(x)        chosen = the k most probable experts

(Qwen2-MoE weights the second part by sigmoid(w x)).

The weights of all experts lie in one tensor, so that an expert which no token chose has a gradient
of zeros, not none: every parameter has a gradient on every machine.

Shapes: B batch, T time, N = B T tokens, D width, F hidden width of an expert, E experts, C chosen per token,
M tokens that chose an expert.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import ModelConfig
from models.mlp import SwiGLU
from models.routing import Routing, choose_experts

Network = Callable[[Tensor], Tensor]
"""[M, D] in, [M, D] out."""


class Experts(nn.Module):
    """E SwiGLU networks."""

    def __init__(self, num_experts: int, width: int, hidden_width: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.empty(num_experts, hidden_width, width))
        self.up = nn.Parameter(torch.empty(num_experts, hidden_width, width))
        self.down = nn.Parameter(torch.empty(num_experts, width, hidden_width))
        for weight in self.parameters():
            nn.init.normal_(weight, std=width**-0.5)

    def forward(self, x_ND: Tensor, chosen_NC: Tensor, weights_NC: Tensor) -> Tensor:
        """sum_c weights_nc expert_{chosen_nc}(x_n), [N, D]."""
        mixed_ND = torch.zeros_like(x_ND)
        for expert, network in enumerate(self.networks()):
            token, choice = torch.where(chosen_NC == expert)
            out_MD = network(x_ND[token]) * weights_NC[token, choice, None]
            mixed_ND.index_add_(0, token, out_MD.to(mixed_ND.dtype))
        return mixed_ND

    def networks(self) -> list[Network]:
        """Each expert by itself."""
        weights = zip(self.gate.unbind(), self.up.unbind(), self.down.unbind(), strict=True)
        return [partial(_swiglu, *matrices) for matrices in weights]


def _swiglu(gate_FD: Tensor, up_FD: Tensor, down_DF: Tensor, x_MD: Tensor) -> Tensor:
    hidden_MF = F.silu(F.linear(x_MD, gate_FD)) * F.linear(x_MD, up_FD)
    return F.linear(hidden_MF, down_DF)


class MixtureOfExperts(nn.Module):
    """Router and experts (Shazeer et al. 2017; Jiang et al. 2024, Mixtral; DeepSeek-V2, 2024)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        D, width = config.width, config.expert_hidden_width
        self.router = nn.Linear(D, config.num_experts, bias=False)
        self.experts = Experts(config.num_experts, D, width)
        shared = config.num_shared_experts
        self.shared = SwiGLU(D, shared * width, bias=False) if shared else None
        self.shared_gate = nn.Linear(D, 1, bias=False) if config.shared_expert_gate else None

    def forward(self, x_BTD: Tensor, routing: Routing | None = None) -> Tensor:
        logits_BTE = self.router(x_BTD).float()
        chosen_BTC, weights_BTC = choose_experts(logits_BTE, self.config)
        if routing is not None:
            routing.record(self, logits_BTE, chosen_BTC)
        mixed_ND = self.experts(x_BTD.flatten(0, 1), chosen_BTC.flatten(0, 1), weights_BTC.flatten(0, 1))
        mixed_BTD = mixed_ND.view_as(x_BTD)
        if self.shared is None:
            return mixed_BTD
        shared_BTD = self.shared(x_BTD)
        if self.shared_gate is not None:
            shared_BTD = self.share_of_shared(x_BTD) * shared_BTD
        return mixed_BTD + shared_BTD

    def share_of_shared(self, x_BTD: Tensor) -> Tensor:
        """sigmoid(w x): how much of the shared expert a token takes, [B, T, 1] (Qwen2-MoE)."""
        assert self.shared_gate is not None
        return self.shared_gate(x_BTD).sigmoid()
