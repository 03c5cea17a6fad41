"""Which token is to be thanked: from rewards of answers to advantages, by the method that was chosen."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from training.rl.advantages import (
    gae,
    group_relative,
    has_spread,
    leave_one_out,
    moments,
    rewards_to_go,
    token_rewards,
    whiten,
)
from training.rl.settings import Algorithm, RlConfig


class Credit(NamedTuple):
    """Of an iteration."""

    advantages_NT: Tensor
    returns_NT: Tensor
    kl_of_answer: float
    """Nats that an answer is from the reference, summed over its tokens, on average."""


def credited(
    settings: RlConfig,
    algorithm: Algorithm,
    *,
    numbers: Sequence[int],
    scores: Sequence[float],
    kl_NT: Tensor,
    values_NT: Tensor,
    mask_NT: Tensor,
    coefficient: float,
) -> Credit:
    """Advantages and returns [N, T] of M answers to prompts `numbers`, those to one side by side, that got
    `scores`; rows from M on have no token in `mask_NT`."""
    num = len(scores)
    kl_MT, mask_MT = kl_NT[:num], mask_NT[:num]
    paid = coefficient if algorithm.kl_in == "reward" else 0.0
    scores_M = torch.tensor(scores, dtype=torch.float32)
    returns_MT = torch.zeros_like(kl_MT)
    if algorithm.compares:
        worth_M = scores_M - paid * kl_MT.sum(1)
        advantages_MT = torch.where(mask_MT, _compared(algorithm, numbers, worth_M)[:, None], 0.0)
    else:
        rewards_MT = token_rewards(kl_MT, scores_M, mask_MT, paid)
        if algorithm.advantage == "gae":
            advantages_MT, returns_MT = gae(
                rewards_MT, values_NT[:num], mask_MT, settings.gamma, settings.gae_lambda
            )
        else:
            advantages_MT = rewards_to_go(rewards_MT, mask_MT, settings.gamma)
        found = moments(advantages_MT, mask_MT)
        if algorithm.loss == "ppo" and settings.whiten_advantages:
            advantages_MT = whiten(advantages_MT, mask_MT, found)
        elif algorithm.loss == "reinforce" and settings.baseline:
            advantages_MT = torch.where(mask_MT, advantages_MT - found.mean, 0.0)
    rest = torch.zeros(len(mask_NT) - num, mask_NT.shape[1])
    return Credit(
        torch.cat([advantages_MT.float(), rest]),
        torch.cat([returns_MT.float(), rest]),
        kl_MT.sum(1).mean().item(),
    )


def _compared(algorithm: Algorithm, numbers: Sequence[int], worth_M: Tensor) -> Tensor:
    """[M] each answer's advantage over the others to its prompt, of which some may be missing."""
    found = torch.zeros_like(worth_M)
    for number in dict.fromkeys(numbers):
        rows = [row for row, other in enumerate(numbers) if other == number]
        group_1K = worth_M[rows][None]
        if algorithm.advantage == "leave_one_out":
            found[rows] = leave_one_out(group_1K)[0]
        elif has_spread(group_1K):
            # Else rounding would be divided by next to nothing.
            found[rows] = group_relative(group_1K, divide=algorithm.advantage == "group_relative")[0]
    return found
