"""What all engines share: mixed precision, and what ranks tell each other."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from training.batch_layout import batch_layout
from training.config import Config
from training.engines.base import Draw, Group, ReadShard, Shard
from training.engines.compiled import CompiledBlocks
from training.engines.loss_scale import LossScale
from training.engines.recompute import recompute
from training.objective_settings import BY_SAMPLE
from training.objectives import LossSum, Objective
from training.sections import EngineConfig

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class RankEngine(ABC):
    """See `training.engines.base.Engine`. Precision is autocast over fp32 weights, one policy for all."""

    def __init__(self, model: nn.Module, draw: Draw, config: Config, group: Group) -> None:
        self.model = model
        self.group = group
        self.compiled: CompiledBlocks | None = None
        self.layer_norms: dict[str, dict[str, float | None]] = {}
        self.precision = config.engine.precision
        self._draw = draw
        self._config = config.optimizer
        layout = batch_layout(config)
        by_sample = (
            getattr(config.model, "head", "") in ("sequence_classification", "reward")
            or config.objective.name in BY_SAMPLE
            or config.objective.per_example
        )
        self._weight_per_step = layout.samples_per_step if by_sample else config.batch.tokens_per_step
        self._begin_loss_scale()

    def _begin_loss_scale(self) -> None:
        self._loss_scale = LossScale(self._weight_per_step) if self.precision == "fp16" else None

    @property
    def loss_scale(self) -> float | None:
        return self._loss_scale.scale if self._loss_scale else None

    def _scaled(self, value: Tensor) -> Tensor:
        """A summed loss as the backward takes it."""
        return value * self._loss_scale.factor if self._loss_scale else value

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.precision in AUTOCAST:
            return torch.autocast(self.group.device.type, dtype=AUTOCAST[self.precision])
        return contextlib.nullcontext()

    @abstractmethod
    def infer(self, function: Callable[[nn.Module], Any]) -> Any:
        """See `Engine`."""

    def evaluate(self, objective: Objective, batch: Any) -> dict[str, LossSum]:
        scores: dict[str, LossSum] = self.infer(lambda model: objective.scores(model, batch))
        return scores

    def logits(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.infer(lambda model: model(tokens))
        return logits

    def barrier(self) -> None:
        self.sum_over_ranks([0.0])

    def sum_over_ranks(self, values: list[float]) -> list[float]:
        total = torch.tensor(values, dtype=torch.float64, device=self.group.device)
        dist.all_reduce(total)
        return total.tolist()

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        self._swap_averages()
        try:
            yield
        finally:
            self._swap_averages()

    @abstractmethod
    def _swap_averages(self) -> None:
        """Exchange weights and their moving averages."""


def prepare_blocks(model: nn.Module, config: EngineConfig) -> CompiledBlocks | None:
    """Have the blocks of a model compiled, and keep no more than they should, before it is spread."""
    compiled = CompiledBlocks(blocks_of(model), config.memory_budget) if config.compile else None
    # Outside what is compiled: recomputing then repeats the same kernels.
    if config.checkpointing in ("selective", "full"):
        recompute(blocks_of(model), config.checkpointing)
    return compiled


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The layers of every stack: a decoder's, an encoder's, or those of both halves of a T5."""
    stacks = (module for name, module in model.named_modules() if name.split(".")[-1] == "blocks")
    return [block for stack in stacks for block in stack.children()]


def fill(shard: Shard, read: ReadShard) -> None:
    """Give a shard its stored values."""
    with torch.no_grad():
        shard.local.copy_(read(shard.name, shard.global_shape, shard.offsets, tuple(shard.local.shape)))
