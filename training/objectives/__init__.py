"""Objectives: what a batch costs. `loss(model, batch) -> LossSum`.

A loss is summed, never averaged, and comes with the weight that it was summed over. A step
divides the summed loss of the whole global batch by its summed weight, once; so accumulation,
padding and uneven ranks cannot change the gradient.

A loss of several parts that are means over different things (predicted tokens and sentence pairs,
say) is made one sum by `combine`, which has to know the weights of the whole step.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from seedbed.randomness import seed64


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
    """Anything that can be trained. A batch is a NamedTuple of tensors, as its task makes them."""

    @property
    def losses(self) -> tuple[str, ...]:
        """The scores that are losses: the sum of their means is the loss of a validation."""

    def loss(self, model: nn.Module, batch: Any) -> LossSum:
        """What is differentiated."""

    def scores(self, model: nn.Module, batch: Any) -> dict[str, LossSum]:
        """What validation reports of a model in eval mode: each a mean over all held-out samples."""


def with_step_weights(
    batches: Sequence[Any], sum_over_ranks: Callable[[list[float]], list[float]]
) -> Sequence[Any]:
    """The micro-batches of a step, each told the whole step's weights where a loss has several parts."""
    if not hasattr(batches[0], "part_weights"):
        return batches
    own = [batch.part_weights() for batch in batches]
    names = list(own[0])
    sums = sum_over_ranks([sum(weights[name].item() for weights in own) for name in names])
    step_weights = dict(zip(names, sums, strict=True))
    return [batch._replace(step_weights=step_weights) for batch in batches]


def combine(parts: Mapping[str, LossSum], step_weights: Mapping[str, float]) -> LossSum:
    """One LossSum of which the step makes sum_p S_p / W_p, every part's own mean over the global batch.

    S_p is summed over all micro-batches of the step, and so must `step_weights` W_p be, beforehand: they
    depend on the data alone. Each part is stretched to the unit of the first, S_p W_1 / W_p, so that
    dividing by the summed weight of the first is right for all, however the batch was cut up.
    A part that nothing in the step weighs for adds nothing.
    """
    reference = next(iter(parts))
    total = parts[reference].total
    for name, part in parts.items():
        if name != reference:
            share = step_weights[reference] / step_weights[name] if step_weights[name] else 0.0
            total = total + share * part.total
    return LossSum(total, parts[reference].weight)


def seed_dropout(seed: int, position: int, index: int | None) -> None:
    """Draws are those of micro-batch `index` of the step from `position`, whoever computes it."""
    torch.manual_seed(seed64(seed, "dropout", position, index or 0))


def as_numbers(values: list[Tensor | None]) -> list[float]:
    """Scalars of a device, fetched at once; None is 0."""
    found = [value for value in values if value is not None]
    numbers = iter(torch.stack(found).double().tolist() if found else [])
    return [0.0 if value is None else next(numbers) for value in values]
