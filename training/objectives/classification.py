"""Choosing a label for a text.

Shapes: B texts, T pieces, L labels.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.objectives import LossSum
from training.objectives.cross_entropy import cross_entropy


class ClassificationBatch(NamedTuple):
    """A micro-batch on a device."""

    tokens: Tensor
    """[B, T] int64, padded."""
    valid: Tensor
    """[B, T] bool: not padding."""
    labels: Tensor
    """[B] int64."""
    weights: Tensor
    """[B] float32: 0 for a text that does not count."""


@dataclass(frozen=True)
class Classification:
    """Cross-entropy of each text's label: -sum_b w_b log p(y_b | x_b)."""

    losses = ("loss",)
    label_smoothing: float = 0.0

    def loss(self, model: nn.Module, batch: ClassificationBatch) -> LossSum:
        return self._loss(model, model(batch.tokens, valid_BT=batch.valid), batch)

    def scores(self, model: nn.Module, batch: ClassificationBatch) -> dict[str, LossSum]:
        """The loss, and the share of texts whose most probable label is the right one."""
        logits_BL = model(batch.tokens, valid_BT=batch.valid)
        right_B = (logits_BL.argmax(-1) == batch.labels).to(torch.float32)
        accuracy = LossSum((right_B * batch.weights).sum(), batch.weights.sum())
        return {"loss": self._loss(model, logits_BL, batch), "accuracy": accuracy}

    def _loss(self, model: nn.Module, logits_BL: Tensor, batch: ClassificationBatch) -> LossSum:
        smoothing = self.label_smoothing if model.training else 0.0
        return cross_entropy(logits_BL, batch.labels, batch.weights, label_smoothing=smoothing)
