"""FSDP2: parameters, gradients and optimizer state are sharded by rows over the ranks.

One path for any number of ranks, one included. Precision is autocast over fp32 weights, the
same policy that every engine uses.
"""

import contextlib
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from models.families import learning_rate_scale
from training.config import Config
from training.engines.base import Draw, Group, ReadShard, Shard
from training.objectives import LossSum, Objective
from training.optimizers import make_optimizer


class FsdpEngine:
    """`fully_shard` on every block and on the root; see `training.engines.base.Engine`."""

    def __init__(self, model: nn.Module, draw: Draw, config: Config, group: Group) -> None:
        self.model = model
        self.group = group
        self._draw = draw
        self.clip_norm = config.optimizer.clip_norm
        self.precision = config.engine.precision
        # Taken once: while parameters are gathered, the modules hold the whole ones in their place.
        self._parameters = list(model.named_parameters())
        lr_scale = partial(learning_rate_scale, config.model)
        self.optimizer = make_optimizer(self._parameters, config.optimizer, lr_scale)

    @classmethod
    def prepare(
        cls, build: Callable[[], nn.Module], draw: Draw, config: Config, group: Group
    ) -> "FsdpEngine":
        with torch.device("meta"):
            model = build()
        mesh = init_device_mesh(group.device.type, (group.num_ranks,), mesh_dim_names=("shard",))
        reshard = config.engine.reshard_after_forward
        for block in _blocks(model):
            fully_shard(block, mesh=mesh, reshard_after_forward=reshard)
        fully_shard(model, mesh=mesh, reshard_after_forward=False)
        if hasattr(model, "hidden"):
            # What an objective calls that computes its own logits.
            register_fsdp_forward_method(model, "hidden")
        # Gradients are those of a sum over all micro-batches, so nothing may average over ranks. Both
        # settings are each module's own: set on the root alone, the blocks would average.
        for module in _sharded_modules(model):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
        model.to_empty(device=group.device)
        engine = cls(model, draw, config, group)
        engine.initialize()
        return engine

    @torch.no_grad()
    def initialize(self) -> None:
        self.optimizer.state.clear()
        for name, parameter in self._parameters:
            local, _, offsets = _local(parameter)
            start = offsets[0] * (local.numel() // local.shape[0]) if local.numel() else 0
            local.copy_(torch.from_numpy(self._draw(name, start, start + local.numel())).view(local.shape))

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.precision == "bf16":
            return torch.autocast(self.group.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def micro_batch(self, objective: Objective, batch: Any, *, last: bool) -> tuple[Tensor, Tensor]:
        self.model.train()
        cast(FSDPModule, self.model).set_requires_gradient_sync(last)
        with self._autocast():
            loss = objective.loss(self.model, batch)
        loss.total.backward()
        return loss.total.detach(), loss.weight

    def step(self, lr: float, total_weight: float) -> float:
        gradients = [_local(p.grad)[0] for _, p in self._parameters if p.grad is not None]
        squares = torch.stack([g.pow(2).sum() for g in gradients]).double().sum().item()
        norm = self.sum_over_ranks([squares])[0] ** 0.5 / total_weight
        if torch.tensor(norm).isfinite():
            clip = min(1.0, self.clip_norm / (norm + 1e-6)) if self.clip_norm else 1.0
            torch._foreach_mul_(gradients, clip / total_weight)
            for parameter_group in self.optimizer.param_groups:
                parameter_group["lr"] = lr * parameter_group["lr_scale"]
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    @torch.no_grad()
    def evaluate(self, objective: Objective, batch: Any) -> dict[str, LossSum]:
        with self._inference():
            return objective.scores(self.model, batch)

    @torch.no_grad()
    def logits(self, tokens: Tensor) -> Tensor:
        with self._inference():
            return self.model(tokens)

    @contextlib.contextmanager
    def _inference(self) -> Iterator[None]:
        self.model.eval()
        with self._autocast():
            yield
        # No backward follows that would free what the forward gathered.
        for module in _sharded_modules(self.model):
            module.reshard()

    def barrier(self) -> None:
        self.sum_over_ranks([0.0])

    def sum_over_ranks(self, values: list[float]) -> list[float]:
        total = torch.tensor(values, dtype=torch.float64, device=self.group.device)
        dist.all_reduce(total)
        return total.tolist()

    def state(self, *, optimizer: bool = True) -> Iterator[Shard]:
        for name, parameter in self._parameters:
            yield self._shard(f"model/{name}", parameter)
        if optimizer:
            for name, parameter in self._parameters:
                for moment, value in sorted(self.optimizer.state[parameter].items()):
                    shard = self._shard(f"optimizer/{name}/{moment}", value)
                    if isinstance(value, DTensor) or self.group.rank == 0:
                        yield shard

    def _shard(self, name: str, tensor: Tensor) -> Shard:
        local, shape, offsets = _local(tensor)
        return Shard(name, local, shape, offsets)

    def load_state(self, read: ReadShard, *, optimizer: bool = True, keep: Collection[str] = ()) -> None:
        if optimizer:
            self._create_optimizer_state()
        for name, parameter in self._parameters:
            if name in keep:
                continue
            _fill(f"model/{name}", parameter, read)
            if optimizer:
                for moment, value in self.optimizer.state[parameter].items():
                    _fill(f"optimizer/{name}/{moment}", value, read)

    def _create_optimizer_state(self) -> None:
        # Optimizers create their state in their first step; one with no gradient and no learning
        # rate creates it and changes no weight.
        for _, parameter in self._parameters:
            parameter.grad = torch.zeros_like(parameter)
        for parameter_group in self.optimizer.param_groups:
            parameter_group["lr"] = 0.0
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def _blocks(model: nn.Module) -> list[nn.Module]:
    """The layers of every stack: a decoder's, an encoder's, or those of both halves of a T5."""
    stacks = (module for name, module in model.named_modules() if name.split(".")[-1] == "blocks")
    return [block for stack in stacks for block in stack.children()]


def _sharded_modules(model: nn.Module) -> list[FSDPModule]:
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def _local(tensor: Tensor | None) -> tuple[Tensor, tuple[int, ...], tuple[int, ...]]:
    """(what this rank holds, global shape, where it begins) of a tensor, sharded or not."""
    assert tensor is not None
    if not isinstance(tensor, DTensor):
        return tensor.detach(), tuple(tensor.shape), (0,) * tensor.ndim
    _, offsets = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return tensor.to_local().detach(), tuple(tensor.shape), tuple(offsets)


def _fill(name: str, tensor: Tensor, read: ReadShard) -> None:
    local, shape, offsets = _local(tensor)
    with torch.no_grad():
        local.copy_(read(name, shape, offsets, tuple(local.shape)))
