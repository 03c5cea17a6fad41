"""What a policy and a critic are differentiated by. See `training.rl` for the notation.

A is the advantage, x = log pi - log pi_old, and rho = exp(x), where pi_old wrote the answers.

    reinforce  -A log pi                                             Williams 1992
    ppo        max(-A rho, -A clip(rho, 1 - e, 1 + e'))              Schulman et al. 2017; e' > e: DAPO
               at most -c A where A < 0                              dual clip, Ye et al. 2020
    gspo       the same with rho = exp(mean of x over the answer)    Zheng et al. 2025
    cispo      -clip(rho, 1 - e, 1 + e') A log pi                    MiniMax 2025; the clip has no gradient
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from training.objectives import LossSum

MAX_LOG_RATIO = 20.0
"""Beyond it exp would overflow before a clip can see it."""


@dataclass(frozen=True)
class ClipSettings:
    """Numbers of the formulas above."""

    low: float = 0.2
    high: float = 0.2
    dual: float | None = None
    """c of the dual clip, above 1; None is without."""


class PolicyLoss(NamedTuple):
    """Of each token [B, T]."""

    losses: Tensor
    is_clipped: Tensor
    """Where the bounds decide: under ppo and gspo such a token teaches nothing, under cispo less."""


def reinforce(
    new_BT: Tensor, old_BT: Tensor, advantages_BT: Tensor, mask_BT: Tensor, _: ClipSettings
) -> PolicyLoss:
    return PolicyLoss(-advantages_BT * new_BT, torch.zeros_like(mask_BT))


def ppo(
    new_BT: Tensor, old_BT: Tensor, advantages_BT: Tensor, mask_BT: Tensor, clip: ClipSettings
) -> PolicyLoss:
    return _clipped(_ratio(new_BT - old_BT), advantages_BT, clip)


def gspo(
    new_BT: Tensor, old_BT: Tensor, advantages_BT: Tensor, mask_BT: Tensor, clip: ClipSettings
) -> PolicyLoss:
    moved_BT = torch.where(mask_BT, new_BT - old_BT, 0.0)
    mean_B1 = moved_BT.sum(1, keepdim=True) / mask_BT.sum(1, keepdim=True).clamp(min=1)
    return _clipped(_ratio(mean_B1).expand_as(new_BT), advantages_BT, clip)


def cispo(
    new_BT: Tensor, old_BT: Tensor, advantages_BT: Tensor, mask_BT: Tensor, clip: ClipSettings
) -> PolicyLoss:
    ratio_BT = _ratio(new_BT - old_BT).detach()
    bounded_BT = ratio_BT.clamp(1 - clip.low, 1 + clip.high)
    return PolicyLoss(-bounded_BT * advantages_BT * new_BT, bounded_BT != ratio_BT)


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor, ClipSettings], PolicyLoss]] = {
    "reinforce": reinforce,
    "ppo": ppo,
    "gspo": gspo,
    "cispo": cispo,
}
"""Name -> (log pi, log pi_old, A, mask, settings) -> the losses of the tokens."""


def _ratio(moved: Tensor) -> Tensor:
    return moved.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def _clipped(ratio_BT: Tensor, advantages_BT: Tensor, clip: ClipSettings) -> PolicyLoss:
    plain_BT = -advantages_BT * ratio_BT
    bounded_BT = -advantages_BT * ratio_BT.clamp(1 - clip.low, 1 + clip.high)
    losses_BT, is_clipped_BT = torch.maximum(plain_BT, bounded_BT), bounded_BT > plain_BT
    if clip.dual is not None:
        most_BT = -clip.dual * advantages_BT
        beyond_BT = (advantages_BT < 0) & (losses_BT > most_BT)
        losses_BT = torch.where(beyond_BT, most_BT, losses_BT)
        is_clipped_BT = is_clipped_BT | beyond_BT
    return PolicyLoss(losses_BT, is_clipped_BT)


def value_losses(values_BT: Tensor, old_BT: Tensor, returns_BT: Tensor, clip: float | None) -> PolicyLoss:
    """max((V - R)^2, (clip(V, V_old - e, V_old + e) - R)^2) / 2 of each token (Schulman et al. 2017, as
    OpenAI's baselines have it); without the second for None."""
    plain_BT = (values_BT - returns_BT).square() / 2
    if clip is None:
        return PolicyLoss(plain_BT, torch.zeros_like(plain_BT, dtype=torch.bool))
    near_BT = torch.clamp(values_BT, old_BT - clip, old_BT + clip)
    bounded_BT = (near_BT - returns_BT).square() / 2
    return PolicyLoss(torch.maximum(plain_BT, bounded_BT), bounded_BT > plain_BT)


def entropy(logs_NV: Tensor) -> Tensor:
    """[N] of the distributions with these log-probabilities, in nats."""
    return -(logs_NV.exp() * logs_NV).sum(-1)


def over_tokens(values_BT: Tensor, mask_BT: Tensor) -> LossSum:
    """A mean over the tokens of the whole batch: each counts alike."""
    return LossSum(torch.where(mask_BT, values_BT, 0.0).sum(), mask_BT.sum().to(values_BT.dtype))


def over_answers(values_BT: Tensor, mask_BT: Tensor) -> LossSum:
    """A mean over answers of their tokens' means, as GRPO has it: each answer counts alike, and a token of a
    long one less."""
    sums_B = torch.where(mask_BT, values_BT, 0.0).sum(1)
    counts_B = mask_BT.sum(1)
    return LossSum((sums_B / counts_B.clamp(min=1)).sum(), (counts_B > 0).sum().to(values_BT.dtype))


def over_constant(values_BT: Tensor, mask_BT: Tensor, limit: int) -> LossSum:
    """A mean over answers of their tokens' sums by one constant, the longest that an answer may be, as Dr.
    GRPO has it: length does not change what a token counts."""
    total = torch.where(mask_BT, values_BT, 0.0).sum() / limit
    return LossSum(total, mask_BT.any(1).sum().to(values_BT.dtype))


def importance(trainer_BT: Tensor, generator_BT: Tensor, limit: float) -> Tensor:
    """[B, T] min(pi_trainer / pi_generator, limit), without gradient: what a token that another policy, or
    other arithmetic, sampled is weighed by (truncated importance sampling, Ionides 2008)."""
    return _ratio(trainer_BT - generator_BT).clamp(max=limit).detach()
