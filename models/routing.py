"""Which experts a token takes, and the losses that keep the choice even and its scores small.

All losses are given for each sequence by itself, so that they do not depend on what else is in a
batch; or against shares counted over a wider population, which are constants to the gradient.

Shapes: B batch, T time, L layers with experts, E experts, C chosen per token.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import ModelConfig


def choose_experts(logits_BTE: Tensor, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """([B, T, C] experts, [B, T, C] weights): the most probable ones, in the most probable groups."""
    probabilities_BTE = logits_BTE.softmax(-1)
    eligible_BTE = probabilities_BTE
    if config.groups_per_token < config.num_expert_groups:
        # DeepSeek-V2, section 2.2.2: a token's experts lie in few groups, hence on few devices.
        grouped_BTGE = probabilities_BTE.unflatten(-1, (config.num_expert_groups, -1))
        best_BTG = grouped_BTGE.amax(-1).topk(config.groups_per_token).indices
        allowed_BTG = torch.zeros_like(grouped_BTGE[..., 0]).scatter(-1, best_BTG, 1.0)
        eligible_BTE = (grouped_BTGE * allowed_BTG.unsqueeze(-1)).flatten(-2)
    weights_BTC, chosen_BTC = eligible_BTE.topk(config.experts_per_token)
    if config.expert_weights == "softmax_of_chosen":
        # Dividing by their sum is the softmax over the chosen logits alone.
        weights_BTC = weights_BTC / weights_BTC.sum(-1, keepdim=True)
    return chosen_BTC, weights_BTC * config.expert_scale


class Routing:
    """What the routers of one forward pass scored and chose: `model(tokens, routing=Routing())` fills it.

    Kept by module, so that a block which is computed twice (activation checkpointing) counts once. Not
    a dataclass: what wraps a module looks for tensors in the dataclasses it is called with, and copies them.
    """

    def __init__(self) -> None:
        self.logits: dict[nn.Module, Tensor] = {}
        self.chosen: dict[nn.Module, Tensor] = {}

    def record(self, router: nn.Module, logits_BTE: Tensor, chosen_BTC: Tensor) -> None:
        self.logits[router], self.chosen[router] = logits_BTE, chosen_BTC

    def shares_LE(self, weights_BT: Tensor | None = None) -> Tensor:
        """Mean number of choices per token that fell on each expert; a row sums to C."""
        pairs = zip(self.logits.values(), self.chosen.values(), strict=True)
        means = [_mean_over_time(_choices(c, x.shape[-1]), weights_BT).mean(0) for x, c in pairs]
        return torch.stack(means)

    def balance_loss_B(self, weights_BT: Tensor | None = None, shares_LE: Tensor | None = None) -> Tensor:
        """Mean over layers of `balance_loss`."""
        losses = [
            balance_loss(logits, chosen, weights_BT, None if shares_LE is None else shares_LE[layer])
            for layer, (logits, chosen) in enumerate(
                zip(self.logits.values(), self.chosen.values(), strict=True)
            )
        ]
        return torch.stack(losses).mean(0)

    def z_loss_B(self, weights_BT: Tensor | None = None) -> Tensor:
        """Mean over layers of `z_loss`."""
        return torch.stack([z_loss(logits, weights_BT) for logits in self.logits.values()]).mean(0)


def balance_loss(
    logits_BTE: Tensor,
    chosen_BTC: Tensor,
    weights_BT: Tensor | None = None,
    shares_E: Tensor | None = None,
) -> Tensor:
    """[B]: E sum_e f_e P_e (Fedus et al. 2021, Switch, equations 4 to 6), for each sequence.

    f_e is the number of choices per token that fell on e (it sums to C, as in Mixtral; Switch has
    C = 1), P_e the mean probability of e; even routing gives C. `shares_E` takes the place of f, so
    that it can be counted over a global batch. `weights_BT` are 0 where a token is padding.
    """
    num_experts = logits_BTE.shape[-1]
    probabilities_BE = _mean_over_time(logits_BTE.softmax(-1), weights_BT)
    if shares_E is None:
        shares_E = _mean_over_time(_choices(chosen_BTC, num_experts), weights_BT)
    return num_experts * (shares_E * probabilities_BE).sum(-1)


def z_loss(logits_BTE: Tensor, weights_BT: Tensor | None = None) -> Tensor:
    """[B]: mean of log^2 sum_e exp(logit_e) (Zoph et al. 2022, ST-MoE, equation 5), for each sequence."""
    return _mean_over_time(logits_BTE.logsumexp(-1, keepdim=True).square(), weights_BT).squeeze(-1)


def _choices(chosen_BTC: Tensor, num_experts: int) -> Tensor:
    return F.one_hot(chosen_BTC, num_experts).sum(-2).float()


def _mean_over_time(x_BTE: Tensor, weights_BT: Tensor | None) -> Tensor:
    if weights_BT is None:
        return x_BTE.mean(1)
    # A sequence of padding alone has a loss of zero, not of 0/0.
    return (x_BTE * weights_BT.unsqueeze(-1)).sum(1) / weights_BT.sum(1, keepdim=True).clamp(min=1e-9)
