"""Policy and critic for an engine: a micro-batch of answers -> LossSum. See `training.rl` for the
notation."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.heads import RewardModel
from models.transformer import Transformer
from seedbed.errors import ConfigError
from training.objectives import LossSum
from training.rl.kl import ESTIMATORS
from training.rl.losses import (
    LOSSES,
    ClipSettings,
    entropy,
    over_answers,
    over_constant,
    over_tokens,
    value_losses,
)
from training.rl.settings import Algorithm, RlConfig

if TYPE_CHECKING:
    from training.rl.buffer import Learned

Mean = Literal["tokens", "answers", "constant"]
"""What the loss is a mean over: see `losses`."""


class PolicyBatch(NamedTuple):
    """A micro-batch for the policy."""

    tokens: Tensor
    """[B, T + 1] int64."""
    mask: Tensor
    """[B, T] bool; an answer without any true column weighs nothing."""
    old: Tensor
    """[B, T] log-probabilities before the first update, by the trainer."""
    advantages: Tensor
    """[B, T]"""
    reference: Tensor
    """[B, T] log-probabilities of the reference; only read with a coefficient for its divergence."""
    importance: Tensor
    """[B, T] what a token is weighed by that other arithmetic, or an older policy, sampled; ones
    elsewhere."""


class ValueBatch(NamedTuple):
    """A micro-batch for the critic."""

    tokens: Tensor
    mask: Tensor
    old: Tensor
    """[B, T] values when the answers were written."""
    returns: Tensor
    """[B, T]"""


def token_log_probs(
    model: nn.Module, tokens: Tensor, mask: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """([B, T] of each next token where `mask` is true, 0 elsewhere; [N, V] of all tokens at these N places),
    float32 log-probabilities.

    Prompts get no logits: those are the largest tensors there are.
    """
    decoder = cast(Transformer, model)
    return log_probs_of(decoder.hidden(tokens[:, :-1]), decoder.head_weight, tokens, mask, temperature)


def log_probs_of(
    hidden_BTD: Tensor, head_VD: Tensor, tokens: Tensor, mask: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """The same, of what a model made of `tokens` [B, T + 1] before its head."""
    places_N = mask.flatten().nonzero().squeeze(1)
    hidden_ND = hidden_BTD.flatten(0, 1).index_select(0, places_N)
    logits_NV = F.linear(hidden_ND, head_VD).float()
    logs_NV = (logits_NV if temperature == 1 else logits_NV / temperature).log_softmax(-1)
    next_N = tokens[:, 1:].flatten()[places_N]
    chosen_N = logs_NV.gather(-1, next_N[:, None]).squeeze(-1)
    return chosen_N.new_zeros(mask.numel()).index_copy(0, places_N, chosen_N).view(mask.shape), logs_NV


def token_values(model: nn.Module, tokens: Tensor) -> Tensor:
    """[B, T] float32: of what was read before each next token. The head's bias learns here, as it says what
    answers are worth; the raters' temperature has no part in it."""
    assert isinstance(model, RewardModel)
    # As a language model's: an engine that shards leaves the parameters of the head whole after `hidden`.
    hidden_BTD, head = model.hidden(tokens[:, :-1]), model.reward
    values_BT = F.linear(hidden_BTD, head.weight, head.bias).squeeze(-1)
    # A gradient of zero and not none: engines wait for those of all parameters.
    return values_BT.float() + 0 * head.log_temperature


@dataclass(frozen=True)
class PolicyObjective:
    """One of `losses.LOSSES`, with an entropy bonus and a penalty for the divergence from the reference."""

    name: str = "ppo"
    clip: ClipSettings = field(default_factory=ClipSettings)
    mean: Mean = "tokens"
    longest: int = 1
    """Tokens that an answer may have: the divisor of a mean over a constant length."""
    temperature: float = 1.0
    """That the answers were sampled at."""
    entropy: float = 0.0
    kl: float = 0.0
    """Coefficient of the divergence in the loss (GRPO has it there; PPO in the reward)."""
    kl_estimator: str = "k3"
    """k2 has the gradient of KL(pi, pi_ref), k3 that of KL(pi_ref, pi); k1 has none in expectation."""

    losses = ("loss",)

    def __post_init__(self) -> None:
        for field_, value, known in (
            ("name", self.name, tuple(LOSSES)),
            ("mean", self.mean, get_args(Mean)),
            ("kl_estimator", self.kl_estimator, ("k2", "k3")),
        ):
            if value not in known:
                raise ConfigError(f"{field_} = {value!r} is no such thing", f"one of {', '.join(known)}")
        if self.mean == "constant" and self.longest < 2:
            raise ConfigError(
                "a mean over a constant length needs the longest that an answer may be", "set longest"
            )

    def loss(self, model: nn.Module, batch: PolicyBatch) -> LossSum:
        return self._parts(model, batch)["loss"]

    def scores(self, model: nn.Module, batch: PolicyBatch) -> dict[str, LossSum]:
        """The loss; ratio, share of clipped tokens, divergence from the old policy, entropy."""
        return self._parts(model, batch)

    def _parts(self, model: nn.Module, batch: PolicyBatch) -> dict[str, LossSum]:
        return self.parts(*token_log_probs(model, batch.tokens, batch.mask, self.temperature), batch)

    def parts(self, new_BT: Tensor, logs_NV: Tensor, batch: PolicyBatch) -> dict[str, LossSum]:
        """`scores`, of what `log_probs_of` gave."""
        found = LOSSES[self.name](new_BT, batch.old, batch.advantages, batch.mask, self.clip)
        losses_BT = found.losses * batch.importance
        entropies_N = entropy(logs_NV if self.entropy else logs_NV.detach())
        entropies_BT = torch.zeros_like(new_BT).masked_scatter(batch.mask, entropies_N)
        if self.entropy:
            losses_BT = losses_BT - self.entropy * entropies_BT
        if self.kl:
            losses_BT = losses_BT + self.kl * ESTIMATORS[self.kl_estimator](new_BT - batch.reference)
        moved_BT = (new_BT - batch.old).detach()
        return {
            "loss": self._mean(losses_BT, batch.mask),
            "ratio": over_tokens(moved_BT.exp(), batch.mask),
            "clipped": over_tokens(found.is_clipped.float(), batch.mask),
            "approximate_kl": over_tokens(moved_BT.square() / 2, batch.mask),
            "entropy": over_tokens(entropies_BT.detach(), batch.mask),
        }

    def weight(self, mask_BT: Tensor) -> Tensor:
        """What the loss of a micro-batch weighs."""
        return self._mean(torch.zeros(mask_BT.shape), mask_BT).weight

    def _mean(self, values_BT: Tensor, mask_BT: Tensor) -> LossSum:
        if self.mean == "tokens":
            return over_tokens(values_BT, mask_BT)
        if self.mean == "answers":
            return over_answers(values_BT, mask_BT)
        return over_constant(values_BT, mask_BT, self.longest)


@dataclass(frozen=True)
class ValueObjective:
    """Squared errors of a critic, which is a `RewardModel` read after every token."""

    clip: float | None = 0.2

    losses = ("loss",)

    def loss(self, model: nn.Module, batch: ValueBatch) -> LossSum:
        return self.scores(model, batch)["loss"]

    def scores(self, model: nn.Module, batch: ValueBatch) -> dict[str, LossSum]:
        """The loss, and the share of tokens whose value was held back."""
        values_BT = torch.where(batch.mask, token_values(model, batch.tokens), 0.0)
        found = value_losses(values_BT, batch.old, batch.returns, self.clip)
        return {
            "loss": over_tokens(found.losses, batch.mask),
            "clipped": over_tokens(found.is_clipped.float(), batch.mask),
        }


def policy_objective(settings: RlConfig, algorithm: Algorithm) -> PolicyObjective:
    estimator = "k3" if settings.kl_estimator == "auto" else settings.kl_estimator
    in_loss = algorithm.kl_in == "loss" and settings.kl > 0
    return PolicyObjective(
        algorithm.loss,
        ClipSettings(settings.clip_low, settings.clip_high, settings.dual_clip or None),
        algorithm.mean,
        max(2, settings.max_new_tokens),
        settings.temperature,
        settings.entropy,
        settings.kl if in_loss else 0.0,
        estimator if in_loss else "k3",
    )


class RolloutObjective:
    """A policy's objective over micro-batches of the buffer; what its losses are made of adds up in `seen`
    until it is taken."""

    losses = ("loss",)

    def __init__(self, policy: PolicyObjective) -> None:
        self.policy = policy
        self.seen: dict[str, list[Tensor]] = {}

    def set_kl(self, coefficient: float) -> None:
        """Of the divergence in the loss, from now on."""
        self.policy = replace(self.policy, kl=coefficient)

    def loss(self, model: nn.Module, batch: "Learned") -> LossSum:
        return self._noted(self.policy.scores(model, batch.for_policy()))

    def _noted(self, parts: dict[str, LossSum]) -> LossSum:
        """The first, once all are among what was seen."""
        for name, part in parts.items():
            self.seen.setdefault(name, []).append(torch.stack([part.total.detach(), part.weight]))
        return next(iter(parts.values()))

    def scores(self, model: nn.Module, batch: "Learned") -> dict[str, LossSum]:
        return self.policy.scores(model, batch.for_policy())

    def take_seen(self, count: int) -> dict[str, tuple[float, float]]:
        """(sum, weight) of each part in the first `count` micro-batches since it was last taken, of this
        rank; a loss may be computed again after them."""
        found = {
            name: torch.stack(values[:count]).double().sum(0).tolist() for name, values in self.seen.items()
        }
        self.seen = {}
        return {name: (total, weight) for name, (total, weight) in found.items()}
