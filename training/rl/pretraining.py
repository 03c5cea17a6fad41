"""PPO-ptx: a policy that learns from rewards goes on learning the text that it was pretrained on.

Its loss is that of its answers, a mean over them, plus a coefficient times that of the text, a mean over its
tokens (Ouyang et al. 2022, "Training language models to follow instructions with human feedback", eq. 2):
what is learned from rewards costs less of what was known before. Beside each answer stands a window of text,
which is a function of (seed, data position).
"""

from collections.abc import Mapping
from typing import NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.batches import Batch, Stream
from data.config import OrderConfig
from data.mixture import packed
from data.shards import Dataset
from models.transformer import Transformer
from seedbed.randomness import seed64
from training.objectives import LossSum, TensorBatch, combine
from training.rl.buffer import Learned, LearnedWithText, tensors
from training.rl.objectives import PolicyObjective, RolloutObjective, log_probs_of


class WithText(NamedTuple):
    """The same as tensors; `step_weights` are the summed `part_weights` of the whole step."""

    answers: Learned
    text: TensorBatch
    weight: Tensor
    """Of the answers, as their loss is a mean over it."""
    step_weights: Mapping[str, float] | None = None

    def part_weights(self) -> dict[str, Tensor]:
        return {"answers": self.weight, "text": self.text.weights.sum()}


def text_stream(path: str, context: int, seed: int) -> Stream[Batch]:
    """The windows of a dataset of texts, in an order that is their own."""
    return packed(Dataset.open(path).split("train"), OrderConfig(), context, seed64(seed, "ptx"))


def with_text(batch: LearnedWithText, policy: PolicyObjective) -> WithText:
    arrays = (batch.text, batch.text_targets, batch.text_weights)
    answers = tensors(batch)
    return WithText(
        answers,
        TensorBatch(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)),
        policy.weight(answers.weights > 0),
    )


def answers_of(batch: "Learned | WithText") -> Learned:
    """What policy and critic learn from, of a micro-batch with text or without."""
    return batch.answers if isinstance(batch, WithText) else batch


class PtxObjective(RolloutObjective):
    """`coefficient` times the mean loss of the text is added to that of the answers. One forward has both."""

    def __init__(self, policy: PolicyObjective, coefficient: float) -> None:
        super().__init__(policy)
        self.coefficient = coefficient

    def loss(self, model: nn.Module, batch: "Learned | WithText") -> LossSum:
        if not isinstance(batch, WithText):
            return super().loss(model, batch)
        answers, text = batch.answers, batch.text
        num, length = answers.tokens[:, 1:].shape
        read = F.pad(answers.tokens[:, :-1], (0, text.tokens.shape[1] - length))
        decoder = cast(Transformer, model)
        hidden_BTD, head_VD = decoder.hidden(torch.cat([read, text.tokens])), decoder.head_weight
        mask_BT = answers.weights > 0
        new_BT, logs_NV = log_probs_of(
            hidden_BTD[:num, :length], head_VD, answers.tokens, mask_BT, self.policy.temperature
        )
        found = self._noted(self.policy.parts(new_BT, logs_NV, answers.for_policy()))
        logits_BTV = F.linear(hidden_BTD[num:], head_VD).float()
        losses_BT = F.cross_entropy(logits_BTV.transpose(1, 2), text.targets, reduction="none")
        known = LossSum((losses_BT * text.weights).sum(), text.weights.sum())
        self._noted({"text_loss": known})
        weights = batch.step_weights or {name: float(part) for name, part in batch.part_weights().items()}
        return combine(
            {"answers": found, "text": LossSum(self.coefficient * known.total, known.weight)}, weights
        )
