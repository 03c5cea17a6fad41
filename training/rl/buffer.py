"""The answers of an iteration as samples: a data source whose documents the policy writes.

An iteration is `epochs` times N samples of the data position; which answer a position is, is a function of
(seed, position). What stands in the buffer when a step is saved is part of the checkpoint.

Shapes: N answers of an iteration, T columns of the longest; see `training.rl` for the notation.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.batches import Batch, Stream
from data.order import Permutation
from seedbed.randomness import seed64
from training.checkpoint.reader import Checkpoint
from training.engines.base import Shard
from training.rl.objectives import PolicyBatch, ValueBatch
from training.rl.settings import RlConfig

PREFIX = "rollouts/"


class Learned(NamedTuple):
    """What is learned from, for each answer of an iteration, or of a micro-batch for policy and critic; of an
    answer that is left out all weights are 0."""

    tokens: Tensor
    """[N, T + 1] int64"""
    weights: Tensor
    """[N, T] float32: 1 at an answer's tokens."""
    old: Tensor
    """[N, T] log-probabilities when they were sampled, by the trainer."""
    reference: Tensor
    """[N, T]"""
    advantages: Tensor
    """[N, T]"""
    values: Tensor
    """[N, T]"""
    returns: Tensor
    """[N, T]"""
    importance: Tensor
    """[N, T]"""

    def for_policy(self) -> PolicyBatch:
        return PolicyBatch(
            self.tokens, self.weights > 0, self.old, self.advantages, self.reference, self.importance
        )

    def for_critic(self) -> ValueBatch:
        return ValueBatch(self.tokens, self.weights > 0, self.values, self.returns)


@dataclass(frozen=True)
class LearnedBatch:
    """The same of some answers, as arrays."""

    tokens: NDArray[np.int64]
    weights: NDArray[np.float32]
    old: NDArray[np.float32]
    reference: NDArray[np.float32]
    advantages: NDArray[np.float32]
    values: NDArray[np.float32]
    returns: NDArray[np.float32]
    importance: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class LearnedWithText(LearnedBatch):
    """Answers, and a window of text beside each."""

    text: NDArray[np.int64]
    """[B, C] inputs."""
    text_targets: NDArray[np.int64]
    """[B, C]"""
    text_weights: NDArray[np.float32]
    """[B, C]"""

    @classmethod
    def of(cls, learned: LearnedBatch, text: Batch) -> "LearnedWithText":
        return cls(**vars(learned), text=text.tokens, text_targets=text.targets, text_weights=text.weights)


class Place(NamedTuple):
    """Where a data position is."""

    iteration: int
    epoch: int
    number: int
    """Of the sample, within the epoch."""


class RolloutStream:
    """The samples that the buffer has; it is filled as training comes to them."""

    def __init__(
        self,
        settings: RlConfig,
        num_prompts: int,
        context: int,
        seed: int,
        text: Stream[Batch] | None = None,
    ) -> None:
        """`text` is read beside the answers."""
        self.settings, self.context, self.seed, self.text = settings, context, seed, text
        self.per_iteration = settings.per_iteration * settings.epochs
        self.num_samples = max(1, num_prompts * settings.answers * settings.epochs)
        """Of a reading of all prompts."""
        self.learned: Learned | None = None
        self.iteration = -1
        """Whose answers these are."""

    def place(self, position: int) -> Place:
        iteration, within = divmod(position, self.per_iteration)
        return Place(iteration, *divmod(within, self.settings.per_iteration))

    def holds(self, position: int) -> bool:
        """Whether the answers are there that are learned from at a position."""
        return self.learned is not None and self.iteration == self.place(position).iteration

    def begins(self, position: int) -> bool:
        """Whether an iteration does."""
        return position % self.per_iteration == 0

    def batch(self, position: int, count: int) -> LearnedBatch:
        """Samples position .. position + count - 1, which lie within one epoch."""
        assert self.learned is not None
        place = self.place(position)
        size = self.settings.per_iteration
        order = Permutation(size, seed64(self.seed, "rollout order", place.iteration, place.epoch))
        rows = order.many(np.arange(place.number, place.number + count))
        found = LearnedBatch(**{name: value[rows].numpy() for name, value in self._tensors()})
        return LearnedWithText.of(found, self.text.batch(position, count)) if self.text else found

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        assert self.learned is not None
        yield from self.learned._asdict().items()

    def state(self, position: int) -> Iterator[Shard]:
        """What a run that goes on from `position` needs of the buffer; nothing where an iteration begins."""
        if self.holds(position) and not self.begins(position):
            for name, value in self._tensors():
                yield Shard(PREFIX + name, value, tuple(value.shape), (0,) * value.ndim)

    def load_state(self, checkpoint: Checkpoint) -> None:
        stored = checkpoint.names(PREFIX)
        self.iteration = self.place(checkpoint.position).iteration
        self.learned = (
            Learned(*(checkpoint.read(PREFIX + name) for name in Learned._fields)) if stored else None
        )


def tensors(batch: LearnedBatch) -> Learned:
    """Without the columns that none of its answers has."""
    last = int(np.flatnonzero(batch.weights.any(axis=0)).max(initial=0)) + 1
    columns = [
        torch.from_numpy(np.ascontiguousarray(getattr(batch, name)[:, :last])) for name in Learned._fields[1:]
    ]
    tokens = torch.from_numpy(np.ascontiguousarray(batch.tokens[:, : last + 1]))
    return Learned(tokens, *columns)


def padded(rows: Sequence[Tensor], mask_NT: Tensor) -> Tensor:
    """[N, T] float32: each answer's numbers at its tokens, 0 elsewhere."""
    values_NT = torch.zeros(mask_NT.shape)
    for values_T, mask_T, row in zip(values_NT, mask_NT, rows, strict=True):
        values_T[mask_T] = row.float()
    return values_NT
