"""What must be so at every update: each breach is what voided months of somebody's runs, and ends this one.

Checked on whole batches, before anything is learned from them; see `training.rl` for the notation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seedbed.errors import TrainingError
from training.rl.rollouts import Rollout, RolloutTensors


@dataclass(frozen=True)
class Bands:
    """How much may differ where arithmetic may."""

    generator: float = 1e-2
    """Mean of |log p by the trainer - log p by the generator| over tokens, in nats; in float32 on one machine
    it is near 1e-6, in bfloat16 near 1e-3."""
    answer: float = 0.1
    """The same over the tokens of one answer, the worst of a batch: a single wrong row does not show in a
    mean."""
    first_ratio: float = 1e-3
    """Largest |log ratio| before the first update, recomputed in another batch; a hundredth of it on average
    over tokens."""
    kl: float = 50.0
    """Largest mean divergence of an answer from the reference, in nats."""

    @classmethod
    def of(cls, precision: str) -> "Bands":
        """Logits of a policy that is sure of itself are 20 and more, of which bfloat16 keeps eight bits."""
        return cls() if precision == "fp32" else cls(generator=0.05, answer=0.5, first_ratio=1.0)


class Broken(TrainingError):
    """An invariant does not hold."""

    def __init__(self, name: str, what: str, fix: str) -> None:
        super().__init__(f"invariant {name}: {what}", fix)
        self.name = name


def check_rollouts(rollouts: Sequence[Rollout], context: int, vocab_size: int) -> None:
    """Prompts and answers are there, fit, and hold tokens; each token has one log-probability, not above
    0."""
    for one in rollouts:
        if not one.prompt or not one.answer:
            raise Broken(
                "mask", f"prompt {one.number} has no answer, or no prompt", "sample one token or more"
            )
        if len(one.prompt) + len(one.answer) > context:
            raise Broken("context", f"the answer to prompt {one.number} does not fit", "shorten prompts")
        if len(one.answer) != len(one.log_probs):
            raise Broken(
                "tokens",
                f"the answer to prompt {one.number} has {len(one.answer)} tokens and {len(one.log_probs)} "
                "log-probabilities",
                "answers must not be encoded anew",
            )
        if not all(0 <= token < vocab_size for token in (*one.prompt, *one.answer)):
            raise Broken(
                "tokens", f"prompt {one.number} has a token that the model does not", "same tokenizer?"
            )
        if not all(-float("inf") < value <= 1e-6 for value in one.log_probs):
            raise Broken("finite", f"a log-probability of prompt {one.number} is none", "look at the weights")


def check_policy(rollouts: Sequence[Rollout], policy: str) -> None:
    """All were made by the weights with this hash: a refresh that was lost shows here, not in the reward."""
    if stale := [one for one in rollouts if one.policy != policy]:
        raise Broken(
            "weights",
            f"{len(stale)} of {len(rollouts)} answers were sampled from weights {stale[0].policy[:12]}, not "
            f"from the policy's {policy[:12]}",
            "the generator was not given the policy's weights",
        )


def check_generator(
    batch: RolloutTensors, trainer_BT: Tensor, bands: Bands, fresh_B: Tensor | None = None
) -> float:
    """Trainer and generator agree on what was sampled with the weights of now: all of it, or what `fresh_B`
    says; returns the mean difference in nats, 0 where nothing was."""
    if fresh_B is not None:
        batch, trainer_BT = RolloutTensors(*(values[fresh_B] for values in batch)), trainer_BT[fresh_B]
    if not len(trainer_BT):
        return 0.0
    apart_BT = torch.where(batch.mask, (trainer_BT - batch.log_probs).abs(), 0.0)
    of_answers_B = apart_BT.sum(1) / batch.mask.sum(1)
    if not of_answers_B.max().item() <= bands.answer:
        raise Broken(
            "generator",
            f"an answer's log-probabilities are {of_answers_B.max().item():.3g} nats from the trainer's on "
            f"average, of which {bands.answer:g} are allowed",
            "positions or padding of that row differ between generator and trainer",
        )
    apart = (apart_BT.sum() / batch.mask.sum()).item()
    # Also when it is nan.
    if not apart <= bands.generator:
        raise Broken(
            "generator",
            f"its log-probabilities are {apart:.3g} nats from the trainer's on average, of which "
            f"{bands.generator:g} are allowed",
            "temperature, positions, padding or precision differ between generator and trainer",
        )
    return apart


def check_first_ratio(new_BT: Tensor, old_BT: Tensor, mask_BT: Tensor, bands: Bands) -> None:
    """Before the first update the policy is the old one: ratio 1 everywhere."""
    apart_N = (new_BT - old_BT)[mask_BT].abs()
    apart, mean = apart_N.max().item(), apart_N.mean().item()
    if not (apart <= bands.first_ratio and mean <= bands.first_ratio / 100):
        raise Broken(
            "ratio",
            f"before the first update the log-ratio is up to {apart:.3g}, {mean:.3g} on average, not 0",
            "dropout, padding or temperature differ between the two forwards",
        )


def check_reference(
    kl_BT: Tensor, mask_BT: Tensor, bands: Bands, *, is_first: bool, is_initial: bool
) -> float:
    """Mean divergence of an answer in nats: 0 at the start if the policy began as the reference, else in
    band."""
    mean = torch.where(mask_BT, kl_BT, 0.0).sum(1).mean().item()
    if is_first and is_initial and not abs(mean) <= bands.first_ratio / 100 * mask_BT.shape[1]:
        raise Broken(
            "reference",
            f"at the start the divergence from the reference is {mean:.3g} nats, not 0",
            "the policy was not begun from the reference, or one of them has dropout",
        )
    # Far below 0 it says that the answers are not the policy's.
    if not abs(mean) <= bands.kl:
        raise Broken(
            "kl",
            f"an answer is {mean:.3g} nats from the reference on average, {bands.kl:g} are allowed",
            "raise rl.kl, lower the learning rate, or allow for more with rl.max_kl",
        )
    return mean


def check_finite(name: str, values: Tensor, mask: Tensor) -> None:
    """No nan and no infinity where something is learned from."""
    if not values[mask].isfinite().all():
        raise Broken("finite", f"{name} hold what is no number", "look at rewards and weights of this batch")
