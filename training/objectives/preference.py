"""Learning from preferences without a reward model: DPO, IPO, SimPO, ORPO from pairs, KTO from answers.

Notation: l = log pi(y|x), the summed log-probability of the answer's tokens, m = l / |y|, and D = l - l_ref,
how far the policy has moved from the reference; w is the preferred answer, r the other, h = D_w - D_r.

    dpo     -(1 - e) log s(b h) - e log s(-b h)                  Rafailov et al. 2023; e: label smoothing
    ipo     (h - 1 / (2 b))^2                                    Azar et al. 2023, equation 17
    simpo   -log s(b (m_w - m_r) - g)                            Meng et al. 2024
    orpo    -m_w - b log s(log odds_w - log odds_r)              Hong et al. 2024; odds p/(1-p), p = exp(m)
    kto     u (1 - s(b (D - z))) for a good answer,              Ethayarajh et al. 2024
            u' (1 - s(b (z - D))) for a bad one

In KTO z = max(0, mean of D over mismatched answers) is taken over a micro-batch, without gradient: its size
is part of what a run is.

Shapes: B samples, K = 2 candidates, T = context, V vocabulary.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.objectives import LossSum


class GroupTensors(NamedTuple):
    """A micro-batch of candidates on a device; see `data.examples.groups.GroupBatch`."""

    tokens: Tensor
    """[B, K, T] int64."""
    lengths: Tensor
    """[B, K] int64."""
    trained: Tensor
    """[B, K, T] bool."""
    ranks: Tensor
    """[B, K] int64."""
    margins: Tensor
    """[B] float32."""
    weights: Tensor
    """[B] float32."""
    reference: Tensor
    """[B, K] float32."""


@dataclass(frozen=True)
class Answers:
    """What a loss knows of the answers of a micro-batch."""

    log_probs: Tensor
    """[B, 2] l. For KTO the second is that of the mismatched answer."""
    counts: Tensor
    """[B, 2] |y|."""
    reference: Tensor
    """[B, 2] l_ref."""
    is_good: Tensor
    """[B] whether the first answer is a good one: for KTO."""
    weights: Tensor
    """[B]"""

    @property
    def moved(self) -> Tensor:
        """[B, 2] D."""
        return self.log_probs - self.reference

    @property
    def means(self) -> Tensor:
        """[B, 2] m."""
        return self.log_probs / self.counts.clamp(min=1)


@dataclass(frozen=True)
class PreferenceSettings:
    """Numbers of the formulas above."""

    beta: float = 0.1
    label_smoothing: float = 0.0
    margin: float = 0.0
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0


def difference(pairs_B2: Tensor) -> Tensor:
    """[B]: of the preferred answer and the other."""
    return pairs_B2[:, 0] - pairs_B2[:, 1]


def dpo(answers: Answers, settings: PreferenceSettings) -> Tensor:
    scaled_B = settings.beta * difference(answers.moved)
    e = settings.label_smoothing
    return -(1 - e) * F.logsigmoid(scaled_B) - e * F.logsigmoid(-scaled_B)


def ipo(answers: Answers, settings: PreferenceSettings) -> Tensor:
    return (difference(answers.moved) - 1 / (2 * settings.beta)).square()


def simpo(answers: Answers, settings: PreferenceSettings) -> Tensor:
    return -F.logsigmoid(settings.beta * difference(answers.means) - settings.margin)


def orpo(answers: Answers, settings: PreferenceSettings) -> Tensor:
    log_odds_B2 = answers.means - log_one_minus_exp(answers.means)
    return -answers.means[:, 0] - settings.beta * F.logsigmoid(difference(log_odds_B2))


def kto(answers: Answers, settings: PreferenceSettings) -> Tensor:
    own_B, mismatched_B = answers.moved.unbind(1)
    weights_B = answers.weights
    mean = (mismatched_B * weights_B).sum() / weights_B.sum().clamp(min=torch.finfo(torch.float32).tiny)
    z = mean.clamp(min=0).detach()
    good_B = settings.desirable_weight * (1 - torch.sigmoid(settings.beta * (own_B - z)))
    bad_B = settings.undesirable_weight * (1 - torch.sigmoid(settings.beta * (z - own_B)))
    return torch.where(answers.is_good, good_B, bad_B)


LOSSES: dict[str, Callable[[Answers, PreferenceSettings], Tensor]] = {
    "dpo": dpo,
    "ipo": ipo,
    "kto": kto,
    "orpo": orpo,
    "simpo": simpo,
}
"""Name -> the loss [B] of each sample."""
WITH_REFERENCE = ("dpo", "ipo", "kto")
UNPAIRED = ("kto",)


def log_one_minus_exp(values: Tensor) -> Tensor:
    """log(1 - exp(x)) of x < 0, exact near 0 and far from it (Maechler 2012); of 0, that of the number
    below."""
    values = values.clamp(max=-torch.finfo(values.dtype).eps)
    is_near = values > -math.log(2)
    near = torch.log(-torch.expm1(torch.where(is_near, values, -1.0)))
    far = torch.log1p(-torch.exp(torch.where(is_near, -1.0, values)))
    return torch.where(is_near, near, far)


def answer_log_probs(model: nn.Module, batch: GroupTensors) -> tuple[Tensor, Tensor]:
    """[B, K] summed log-probability of the trained tokens of each candidate, and [B, K] how many they are."""
    tokens_NT, trained_NT = batch.tokens.flatten(0, 1), batch.trained.flatten(0, 1)
    logits_NTV = model(tokens_NT[:, :-1]).float()
    losses_NT = F.cross_entropy(logits_NTV.transpose(1, 2), tokens_NT[:, 1:], reduction="none")
    mask_NT = trained_NT[:, 1:].to(losses_NT.dtype)
    shape = batch.tokens.shape[:2]
    return -(losses_NT * mask_NT).sum(1).view(shape), mask_NT.sum(1).view(shape)


@dataclass(frozen=True)
class Preference:
    """One of `LOSSES`, summed over samples by their weights."""

    name: str
    settings: PreferenceSettings = PreferenceSettings()

    losses = ("loss",)

    def loss(self, model: nn.Module, batch: GroupTensors) -> LossSum:
        return self._summed(LOSSES[self.name](self._answers(model, batch), self.settings), batch)

    def scores(self, model: nn.Module, batch: GroupTensors) -> dict[str, LossSum]:
        """The loss; how far good and bad answers have moved; of pairs, how often the right one is ahead."""
        answers = self._answers(model, batch)
        found = {"loss": self._summed(LOSSES[self.name](answers, self.settings), batch)}
        measured = answers.moved if self.name in WITH_REFERENCE else answers.means
        if self.name in UNPAIRED:
            own_B = measured[:, 0]
            for name, chosen_B in (("good_moved", answers.is_good), ("bad_moved", ~answers.is_good)):
                weights_B = batch.weights * chosen_B
                found[name] = LossSum((own_B * weights_B).sum(), weights_B.sum())
            return found
        ahead_B = difference(measured)
        found["accuracy"] = self._summed((ahead_B > 0).float() + 0.5 * (ahead_B == 0).float(), batch)
        found["ahead"] = self._summed(ahead_B, batch)
        found["preferred"] = self._summed(measured[:, 0], batch)
        return found

    def _answers(self, model: nn.Module, batch: GroupTensors) -> Answers:
        log_probs, counts = answer_log_probs(model, batch)
        return Answers(log_probs, counts, batch.reference, batch.ranks[:, 0] == 0, batch.weights)

    def _summed(self, values_B: Tensor, batch: GroupTensors) -> LossSum:
        return LossSum((values_B * batch.weights).sum(), batch.weights.sum())
