"""How much better than expected each token was.

Rewards of answers come once, at the last token; the divergence from the reference is paid token by token.
Statistics are of the whole batch: `SumOverRanks` makes sums of a rank's rows into those of all ranks, so that
the result does not depend on how many there are. See `training.rl` for the notation.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

SumOverRanks = Callable[[list[float]], list[float]]


class Moments(NamedTuple):
    """Of some numbers: how many, their mean, and their variance around it (biased)."""

    number: float
    mean: float
    variance: float


def alone(sums: list[float]) -> list[float]:
    """`SumOverRanks` of one rank."""
    return sums


def moments(values: Tensor, mask: Tensor, sum_over_ranks: SumOverRanks = alone) -> Moments:
    """Of the values where `mask` is true, on all ranks; zeros when there are none."""
    chosen = values.double()[mask]
    count, total = sum_over_ranks([float(chosen.numel()), chosen.sum().item()])
    if not count:
        return Moments(0.0, 0.0, 0.0)
    mean = total / count
    (squares,) = sum_over_ranks([(chosen - mean).square().sum().item()])
    return Moments(count, mean, squares / count)


def whiten(values: Tensor, mask: Tensor, of: Moments, *, keep_mean: bool = False) -> Tensor:
    """(x - mean) / sqrt(variance + 1e-8), zero where `mask` is false.

    Rewards keep their mean, since it says how good answers are; advantages lose it.
    """
    whitened = (values - of.mean) / math.sqrt(of.variance + 1e-8) + of.mean * keep_mean
    return torch.where(mask, whitened, 0.0)


def last_tokens(mask_BT: Tensor) -> Tensor:
    """[B] the column of each answer's last token; an answer has at least one."""
    return mask_BT.shape[1] - 1 - mask_BT.flip(1).int().argmax(1)


def token_rewards(kl_BT: Tensor, scores_B: Tensor, mask_BT: Tensor, coefficient: float) -> Tensor:
    """[B, T]: minus the coefficient times the divergence, and the score at the last token."""
    rewards_BT = torch.where(mask_BT, -coefficient * kl_BT, 0.0)
    rows_B = torch.arange(len(scores_B), device=scores_B.device)
    rewards_BT[rows_B, last_tokens(mask_BT)] += scores_B
    return rewards_BT


def gae(
    rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, gamma: float = 1.0, gae_lambda: float = 0.95
) -> tuple[Tensor, Tensor]:
    """(advantages, returns) [B, T] by generalized advantage estimation (Schulman et al. 2016, equation 16).

    delta_t = r_t + gamma V_{t+1} - V_t, A_t = delta_t + gamma lambda A_{t+1}, R_t = A_t + V_t; past the end
    all are 0. The values are those of the critic as it was when the answers were written.
    """
    advantages_BT = torch.zeros_like(values_BT)
    following_B, next_values_B = torch.zeros_like(values_BT[:, 0]), torch.zeros_like(values_BT[:, 0])
    for t in reversed(range(values_BT.shape[1])):
        delta_B = rewards_BT[:, t] + gamma * next_values_B - values_BT[:, t]
        # Columns after the end hold nothing, so what comes from there is zero.
        following_B = torch.where(mask_BT[:, t], delta_B + gamma * gae_lambda * following_B, 0.0)
        next_values_B = torch.where(mask_BT[:, t], values_BT[:, t], 0.0)
        advantages_BT[:, t] = following_B
    return advantages_BT, torch.where(mask_BT, advantages_BT + values_BT, 0.0)


def rewards_to_go(rewards_BT: Tensor, mask_BT: Tensor, gamma: float = 1.0) -> Tensor:
    """[B, T] sum over s >= t of gamma^(s - t) r_s: what the policy gradient theorem weighs a token by (Sutton
    et al. 2000)."""
    advantages_BT, _ = gae(rewards_BT, torch.zeros_like(rewards_BT), mask_BT, gamma, gae_lambda=1.0)
    return advantages_BT


def leave_one_out(scores_GK: Tensor) -> Tensor:
    """[G, K] each answer's score less the mean of the others to the same prompt (Ahmadian et al. 2024,
    RLOO)."""
    num_answers = scores_GK.shape[1]
    if num_answers < 2:
        raise ValueError("leave_one_out compares answers to one prompt, and there is one answer")
    others_GK = (scores_GK.sum(1, keepdim=True) - scores_GK) / (num_answers - 1)
    return scores_GK - others_GK


def group_relative(scores_GK: Tensor, *, divide: bool = True, eps: float = 1e-6) -> Tensor:
    """[G, K] each score less the mean of its prompt's, over their standard deviation (Shao et al. 2024,
    GRPO).

    The deviation is that of a sample (K - 1), as it is where GRPO is used. Without the division it is Dr.
    GRPO (Liu et al. 2025), which does not weigh prompts up that are nearly all right or all wrong.
    """
    if scores_GK.shape[1] < 2:
        raise ValueError("group_relative compares answers to one prompt, and there is one answer")
    centred_GK = scores_GK - scores_GK.mean(1, keepdim=True)
    return centred_GK / (scores_GK.std(1, keepdim=True) + eps) if divide else centred_GK


def has_spread(scores_GK: Tensor) -> Tensor:
    """[G] whether the answers to a prompt differ in score: else the prompt teaches nothing (Yu et al. 2025,
    DAPO)."""
    return scores_GK.amax(1) > scores_GK.amin(1)


def overlong_penalty(lengths_B: Tensor, limit: int, cache: int) -> Tensor:
    """[B] 0 up to `limit - cache` tokens, then down in a straight line to -1 at `limit` (Yu et al. 2025,
    equation 13)."""
    return ((limit - cache - lengths_B) / cache).clamp(-1.0, 0.0)
