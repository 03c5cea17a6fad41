"""DistributedDataParallel: every rank holds the whole model and its optimizer state; gradients are summed."""

import contextlib
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from training.config import Config
from training.engines.base import Draw, Group
from training.engines.exact import exact_ddp_hook
from training.engines.ownership import Owners, OwnersOfCopies
from training.engines.torch_engine import TorchEngine
from training.objectives import LossSum, Objective


class DdpEngine(TorchEngine):
    """Gradients are summed over the ranks in buckets, while the backward still runs."""

    splits_parameters = False

    def __init__(self, model: nn.Module, draw: Draw, config: Config, group: Group) -> None:
        super().__init__(model, draw, config, group)
        self._parallel = DistributedDataParallel(
            _Loss(model),
            device_ids=[group.device] if group.device.type == "cuda" else None,
            # Initial weights are drawn by name, the same everywhere.
            init_sync=False,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
            # Also keeps the buckets as they are; else they are cut anew within the first step, under the
            # sums that exact mode keeps of them.
            find_unused_parameters=config.engine.exact,
        )
        hook = exact_ddp_hook(self._reduction, group.num_ranks) if self._reduction else _sum
        self._parallel.register_comm_hook(None, hook)

    @classmethod
    def _split(cls, model: nn.Module, config: Config, group: Group) -> None:
        """Nothing is split."""

    def _make_owners(self, shapes: dict[int, tuple[int, ...]]) -> Owners:
        return OwnersOfCopies(shapes, self.group.rank, self.group.num_ranks)

    def _exposes_parts(self, owned: bool = False) -> bool:
        return owned or self.group.rank == 0

    def _sharing(self, share: bool) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext() if share else self._parallel.no_sync()

    def _loss(self, objective: Objective, batch: Any) -> LossSum:
        return LossSum(*self._parallel(objective, batch))


class _Loss(nn.Module):
    """What DistributedDataParallel wraps: whatever an objective calls of the model runs within `forward`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, objective: Objective, batch: Any) -> tuple[Tensor, Tensor]:
        total, weight = objective.loss(self.model, batch)
        return total, weight


def _sum(_: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """Sums; without a hook, gradients are averaged."""
    gradient = bucket.buffer()

    def summed(future: torch.futures.Future[Any]) -> Tensor:
        # Raises what the sum raised.
        future.value()
        return gradient

    return dist.all_reduce(gradient, async_op=True).get_future().then(summed)
