"""Objectives: what a batch costs. `loss(model, batch) -> LossSum`.

A loss is summed, never averaged, and comes with the weight that it was summed over. A step
divides the summed loss of the whole global batch by its summed weight, once; so accumulation,
padding and uneven ranks cannot change the gradient.
"""

from typing import NamedTuple, Protocol

from torch import Tensor, nn


class LossSum(NamedTuple):
    """A summed loss in nats (scalar tensor with gradient) and the summed weight of its terms."""

    total: Tensor
    weight: Tensor


class TensorBatch(NamedTuple):
    """A micro-batch on a device: tokens, targets [B, T] int64; weights [B, T] float32.

    `positions` and `documents` [B, T] are given when attention stays inside documents.
    """

    tokens: Tensor
    targets: Tensor
    weights: Tensor
    positions: Tensor | None = None
    documents: Tensor | None = None


class Objective(Protocol):
    """Anything that can be trained."""

    def loss(self, model: nn.Module, batch: TensorBatch) -> LossSum: ...
