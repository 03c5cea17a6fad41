"""Learning a reward from comparisons (Bradley and Terry 1952; Ouyang et al. 2022, InstructGPT, equation 1).

    1 / P  sum over pairs i before j of  -log s((r_i - r_j - m) / tau)  +  c (r_i + r_j)^2

over the P pairs of a prompt's K candidates, all in one forward pass: a prompt with many answers counts as
one. m is the margin of the data (Touvron et al. 2023, Llama 2), c centres rewards (Eisenstein et al. 2023),
and tau is the temperature of the raters' noise, 1 unless it is learned.

Shapes: B samples, K candidates, T = context.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.heads import RewardModel, kept
from training.objectives import LossSum
from training.objectives.preference import GroupTensors


def candidate_rewards(model: nn.Module, batch: GroupTensors) -> Tensor:
    """[B, K] float32, scored at the last real token; meaningless where there is no candidate."""
    tokens_NT = batch.tokens.flatten(0, 1)
    positions_T = torch.arange(tokens_NT.shape[1], device=tokens_NT.device)
    valid_NT = positions_T < batch.lengths.flatten()[:, None].clamp(min=1)
    # As a language model's: an engine that shards leaves the parameters of the head whole after `hidden`.
    rewards: Tensor = (
        model.read(model.hidden(tokens_NT), valid_NT)
        if isinstance(model, RewardModel)
        else model(tokens_NT, valid_BT=valid_NT)
    )
    return rewards.float().view(batch.tokens.shape[:2])


def pairs_of(ranks_BK: Tensor) -> Tensor:
    """[B, K, K] bool: candidate i is there, j is too, and i is better than j."""
    better, worse = ranks_BK[:, :, None], ranks_BK[:, None, :]
    return (better >= 0) & (worse >= 0) & (better < worse)


@dataclass(frozen=True)
class RewardModeling:
    """The loss above. A model in eval mode is given the plain one: no margin, no centering."""

    losses = ("loss",)
    centering: float = 0.0
    use_margin: bool = True
    learn_temperature: bool = False

    def loss(self, model: nn.Module, batch: GroupTensors) -> LossSum:
        rewards_BK = candidate_rewards(model, batch)
        pairs_BKK = pairs_of(batch.ranks)
        differences_BKK = rewards_BK[:, :, None] - rewards_BK[:, None, :]
        if self.use_margin and model.training:
            differences_BKK = differences_BKK - batch.margins[:, None, None]
        losses_BKK = -F.logsigmoid(differences_BKK / self._temperature(model))
        if self.centering and model.training:
            sums_BKK = rewards_BK[:, :, None] + rewards_BK[:, None, :]
            losses_BKK = losses_BKK + self.centering * sums_BKK.square()
        return _mean_over_pairs(losses_BKK, pairs_BKK, batch.weights)

    def scores(self, model: nn.Module, batch: GroupTensors) -> dict[str, LossSum]:
        """The loss, the share of pairs in the right order (a tie is half), and the mean reward."""
        rewards_BK = candidate_rewards(model, batch)
        pairs_BKK = pairs_of(batch.ranks)
        differences_BKK = rewards_BK[:, :, None] - rewards_BK[:, None, :]
        losses_BKK = -F.logsigmoid(differences_BKK / self._temperature(model))
        right_BKK = (differences_BKK > 0).float() + 0.5 * (differences_BKK == 0).float()
        there_BK = (batch.ranks >= 0) * batch.weights[:, None]
        return {
            "loss": _mean_over_pairs(losses_BKK, pairs_BKK, batch.weights),
            "accuracy": _mean_over_pairs(right_BKK, pairs_BKK, batch.weights),
            "reward": LossSum((rewards_BK * there_BK).sum(), there_BK.sum()),
        }

    def _temperature(self, model: nn.Module) -> Tensor | float:
        """After the forward, when an engine that shards has the head's parameters whole."""
        if not isinstance(model, RewardModel):
            return 1.0
        log_temperature = model.reward.log_temperature
        return (log_temperature if self.learn_temperature else kept(log_temperature)).float().exp()


def _mean_over_pairs(values_BKK: Tensor, pairs_BKK: Tensor, weights_B: Tensor) -> LossSum:
    """Each sample's mean over its pairs, summed by weight."""
    num_pairs_B = pairs_BKK.sum((1, 2)).clamp(min=1)
    # Not by multiplying: what stands for an absent candidate need not be finite.
    means_B = torch.where(pairs_BKK, values_BKK, 0.0).sum((1, 2)) / num_pairs_B
    return LossSum((means_B * weights_B).sum(), weights_B.sum())
