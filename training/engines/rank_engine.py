"""What all engines share: mixed precision, and what ranks tell each other."""

import contextlib

import torch
import torch.distributed as dist
from torch import Tensor, nn

from training.config import Config
from training.engines.base import Draw, Group
from training.engines.compiled import CompiledBlocks
from training.engines.loss_scale import LossScale

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class RankEngine:
    """See `training.engines.base.Engine`. Precision is autocast over fp32 weights, one policy for all."""

    def __init__(self, model: nn.Module, draw: Draw, config: Config, group: Group) -> None:
        self.model = model
        self.group = group
        self.compiled: CompiledBlocks | None = None
        self.layer_norms: dict[str, dict[str, float]] = {}
        self.precision = config.engine.precision
        self._draw = draw
        self._config = config.optimizer
        self._tokens_per_step = config.batch.tokens_per_step
        self._begin_loss_scale()

    def _begin_loss_scale(self) -> None:
        self._loss_scale = LossScale(self._tokens_per_step) if self.precision == "fp16" else None

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

    def barrier(self) -> None:
        self.sum_over_ranks([0.0])

    def sum_over_ranks(self, values: list[float]) -> list[float]:
        total = torch.tensor(values, dtype=torch.float64, device=self.group.device)
        dist.all_reduce(total)
        return total.tolist()
