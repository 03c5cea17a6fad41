"""What an engine is: the one place that knows how a model is spread over processes."""

import contextlib
import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from training.config import Config
from training.engines.compiled import CompiledBlocks
from training.objectives import LossSum, Objective


@dataclass(frozen=True)
class Group:
    """This process among its fellows."""

    rank: int
    num_ranks: int
    device: torch.device
    store: dist.Store | None = None
    """Where whoever belongs to the attempt can leave word for others."""


class Shard(NamedTuple):
    """The part of one canonical tensor that this rank holds.

    `offsets` says where `local` begins inside the tensor of `global_shape`.
    """

    name: str
    local: Tensor
    global_shape: tuple[int, ...]
    offsets: tuple[int, ...]


class Draw(Protocol):
    """Initial values: numbers start..stop-1 (float32) of the flattened parameter `name`."""

    def __call__(self, name: str, start: int, stop: int) -> np.ndarray: ...


ReadShard = Callable[[str, tuple[int, ...], tuple[int, ...], tuple[int, ...]], Tensor]
"""(name, global shape, offsets, local shape) -> the stored values, on the CPU."""


class Engine(Protocol):
    """Spreads a model, its gradients and its optimizer over the ranks of a group.

    State is exposed under canonical, fully qualified names: `model/<parameter>`,
    `optimizer/<parameter>/<moment>`, and `ema/<parameter>` for moving averages of weights; a tensor held
    whole by every rank is exposed by rank 0.
    """

    group: Group
    model: nn.Module
    compiled: CompiledBlocks | None
    """With `engine.compile`: what became of it."""
    layer_norms: dict[str, dict[str, float | None]]
    """Of the last step that was watched: `weights`, `gradients` or `activations` -> layer -> norm, None where
    that is not finite."""

    @property
    def loss_scale(self) -> float | None:
        """What float16's losses are multiplied by for the next step; None for other precisions."""
        ...

    @classmethod
    def prepare(cls, build: Callable[[], nn.Module], draw: Draw, config: Config, group: Group) -> "Engine":
        """Build the model on the meta device, spread it, and give each rank its initial values."""
        ...

    def initialize(self) -> None:
        """Give each rank its part of the initial weights, and forget all optimizer state."""
        ...

    def micro_batch(self, objective: Objective, batch: Any, *, last: bool) -> tuple[Tensor, Tensor]:
        """Forward and backward of one micro-batch; gradients of the *summed* loss accumulate.

        Returns this micro-batch's (loss sum, weight), detached. `last` marks the last one of a step.
        """
        ...

    def step(self, lr: float, total_weight: float, *, max_norm: float = math.inf) -> float:
        """Divide gradients by `total_weight`, clip, update; returns the global gradient norm before clipping.

        A norm that is not finite, or above `max_norm`, updates nothing. With a loss scale the former is to be
        expected now and then, and lowers it; TrainingError when it cannot be lowered any more.
        """
        ...

    def skip(self) -> None:
        """In place of `step`: drop the gradients of this step."""
        ...

    def recompute(self, objective: Objective, batch: Any) -> Tensor:
        """A micro-batch's summed loss, computed again as `micro_batch` does; gradients stay what they are."""
        ...

    def watch(self) -> None:
        """Measure the norms of every layer in the step whose first micro-batch comes next."""
        ...

    def evaluate(self, objective: Objective, batch: Any) -> dict[str, LossSum]:
        """The objective's scores of one micro-batch, without gradients or dropout."""
        ...

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """Within it the model's weights are their moving averages; there must be some, and no training."""
        ...

    def infer(self, function: Callable[[nn.Module], Any]) -> Any:
        """What `function` computes with the model, without gradients or dropout; every rank must call it."""
        ...

    def logits(self, tokens: Tensor) -> Tensor:
        """[B, T] -> [B, T, V] without gradients; every rank must call it with the same tokens."""
        ...

    def barrier(self) -> None:
        """Return once every rank has called it."""
        ...

    def sum_over_ranks(self, values: list[float]) -> list[float]:
        """Element-wise sums (float64) over all ranks, the same on each."""
        ...

    def state(self, *, optimizer: bool = True) -> Iterator[Shard]:
        """This rank's shards of weights, and of optimizer state; every element is held by one rank."""
        ...

    def load_state(self, read: ReadShard, *, optimizer: bool = True, keep: Collection[str] = ()) -> None:
        """Fill weights, and optimizer state, from `read`; parameters named in `keep` stay as they are."""
        ...
