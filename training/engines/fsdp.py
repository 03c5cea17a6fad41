"""FSDP2: parameters, gradients and optimizer state are sharded by rows over the ranks.

One path for any number of ranks, one included.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, cast

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)

from training.config import Config
from training.engines.base import Draw, Group
from training.engines.exact import use_exact_reduction
from training.engines.ownership import Owners, OwnersOfCopies, OwnersOfShards
from training.engines.rank_engine import blocks_of
from training.engines.torch_engine import TorchEngine
from training.objectives import LossSum, Objective


class FsdpEngine(TorchEngine):
    """`fully_shard` on every block and on the root; `engine.replicas` of them are HSDP."""

    splits_parameters = True

    def __init__(self, model: nn.Module, draw: Draw, config: Config, group: Group) -> None:
        super().__init__(model, draw, config, group)
        if self._reduction:
            use_exact_reduction(_sharded_modules(model), self._reduction, group.num_ranks)

    @property
    def _mesh(self) -> DeviceMesh:
        return cast(DeviceMesh, self._parameters[0][1].device_mesh)  # type: ignore[attr-defined]

    @classmethod
    def _split(cls, model: nn.Module, config: Config, group: Group) -> None:
        replicas = config.engine.replicas
        if replicas == 1:
            mesh = init_device_mesh(group.device.type, (group.num_ranks,), mesh_dim_names=("shard",))
        else:
            mesh = init_device_mesh(
                group.device.type,
                (replicas, group.num_ranks // replicas),
                mesh_dim_names=("replicate", "shard"),
            )
        reshard = config.engine.reshard_after_forward
        offload = OffloadPolicy()
        if config.engine.offload == "parameters":
            offload = CPUOffloadPolicy(pin_memory=group.device.type == "cuda")
        for block in blocks_of(model):
            fully_shard(block, mesh=mesh, reshard_after_forward=reshard, offload_policy=offload)
        fully_shard(model, mesh=mesh, reshard_after_forward=False, offload_policy=offload)
        if hasattr(model, "hidden"):
            # What an objective calls that computes its own logits.
            register_fsdp_forward_method(model, "hidden")
        # Gradients are those of a sum over all micro-batches, so nothing may average over ranks. Both
        # settings are each module's own: set on the root alone, the blocks would average.
        for module in _sharded_modules(model):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)

    def _sharing(self, share: bool) -> contextlib.AbstractContextManager[object]:
        cast(FSDPModule, self.model).set_requires_gradient_sync(share)
        return contextlib.nullcontext()

    def _loss(self, objective: Objective, batch: Any) -> LossSum:
        return objective.loss(self.model, batch)

    @contextlib.contextmanager
    def _inference(self) -> Iterator[None]:
        with super()._inference():
            yield
        # No backward follows that would free what the forward gathered.
        for module in _sharded_modules(self.model):
            module.reshard()

    def _sum_over_parts(self, values: Tensor) -> Tensor:
        # Of parameters in the host's memory, too.
        values = values.to(self.group.device)
        dist.all_reduce(values, group=self._mesh.get_group("shard"))
        return values

    def _make_owners(self, shapes: dict[int, tuple[int, ...]]) -> Owners:
        group = self._mesh.get_group("shard")
        owners = OwnersOfShards if group.size() > 1 else OwnersOfCopies
        return owners(shapes, self._mesh.get_local_rank("shard"), group.size(), group)

    def _exposes_parts(self, owned: bool = False) -> bool:
        return self._mesh.ndim == 1 or self._mesh.get_local_rank("replicate") == 0


def _sharded_modules(model: nn.Module) -> list[FSDPModule]:
    return [module for module in model.modules() if isinstance(module, FSDPModule)]
