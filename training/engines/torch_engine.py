"""What the engines on torch's own data parallelism share: everything but how a model is spread."""

import contextlib
import math
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any, ClassVar, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.profiler import record_function

from models.families import learning_rate_scale
from models.quantized import quantized_matrices
from training.batch_layout import batch_layout
from training.config import Config
from training.engines.base import Draw, Group, ReadShard, Shard
from training.engines.exact import ExactReduction, row_squares
from training.engines.layer_norms import LayerNorms
from training.engines.ownership import Owners
from training.engines.rank_engine import RankEngine, fill, prepare_blocks
from training.objectives import LossSum, Objective
from training.optimizers import STEP, make_optimizer
from training.trainable import trained_names


class TorchEngine(RankEngine):
    """See `training.engines.base.Engine`; a subclass spreads the model, and has ranks share gradients."""

    splits_parameters: ClassVar[bool]
    """Whether a rank holds a part of each parameter, or all of it."""

    def __init__(self, model: nn.Module, draw: Draw, config: Config, group: Group) -> None:
        super().__init__(model, draw, config, group)
        self._watch: LayerNorms | None = None
        # Taken once: while parameters are gathered, the modules hold the whole ones in their place.
        self._parameters = list(model.named_parameters())
        self._quantized = dict(quantized_matrices(model))
        """Matrices that are no parameters, by canonical name; every rank has them whole."""
        self._owners = self._make_owners(
            {
                index: tuple(parameter.shape)
                for index, (name, parameter) in enumerate(self._parameters)
                if config.optimizer.needs_whole(name, parameter.ndim)
            }
        )
        # What the optimizer knows, as plain tensors: this rank's parts; of parameters that it needs whole,
        # those that this rank owns, and nothing of the others.
        self._parts = [nn.Parameter(self._placeholder(index)) for index in range(len(self._parameters))]
        self._make_optimizer = partial(
            make_optimizer,
            [(name, part) for (name, _), part in zip(self._parameters, self._parts, strict=True)],
            config.optimizer,
            partial(learning_rate_scale, config.model),
            fused=not config.engine.exact,
        )
        self.optimizer = self._make_optimizer()
        self._averages: list[Tensor] = []
        """Of the parameters, this rank's parts; none without `optimizer.ema_decay`."""
        self._reduction = ExactReduction(batch_layout(config)) if config.engine.exact else None

    @classmethod
    def prepare(cls, build: Callable[[], nn.Module], draw: Draw, config: Config, group: Group) -> Self:
        with torch.device("meta"):
            model = build()
        if config.optimizer.trained != "all":
            learning = trained_names(config.model, config.optimizer.trained)
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name in learning)
        compiled = prepare_blocks(model, config.engine)
        cls._split(model, config, group)
        model.to_empty(device=group.device if config.engine.offload == "none" else "cpu")
        engine = cls(model, draw, config, group)
        engine.compiled = compiled
        engine.initialize()
        return engine

    @classmethod
    @abstractmethod
    def _split(cls, model: nn.Module, config: Config, group: Group) -> None:
        """Leave to each rank its part of a model on the meta device."""

    @abstractmethod
    def _make_owners(self, shapes: dict[int, tuple[int, ...]]) -> Owners:
        """Who updates the parameters, by index, whose rule needs whole tensors."""

    @abstractmethod
    def _sharing(self, share: bool) -> contextlib.AbstractContextManager[object]:
        """In which a micro-batch runs whose gradients are added to those of other ranks, or are not yet."""

    @abstractmethod
    def _loss(self, objective: Objective, batch: Any) -> LossSum:
        """The loss of the model as it is spread."""

    @torch.no_grad()
    def initialize(self) -> None:
        self.optimizer = self._make_optimizer()
        for name, parameter in self._parameters:
            local, _, offsets = local_part(parameter)
            start = offsets[0] * (local.numel() // local.shape[0]) if local.numel() else 0
            local.copy_(torch.from_numpy(self._draw(name, start, start + local.numel())).view(local.shape))
        for name, matrix in self._quantized.items():
            values = torch.from_numpy(self._draw(name, 0, math.prod(matrix.shape)))
            matrix.put(values.view(matrix.shape).to(self.group.device))
        self._begin_averages()
        self._begin_loss_scale()

    def _begin_averages(self) -> None:
        if self._config.ema_decay:
            self._averages = [local_part(parameter)[0].clone() for _, parameter in self._parameters]

    def micro_batch(self, objective: Objective, batch: Any, *, last: bool) -> tuple[Tensor, Tensor]:
        self.model.train()
        share = self._reduction.ends_leaf() if self._reduction else last
        with self._sharing(share):
            with self._autocast(), record_function("seedbed.forward"):
                loss = self._loss(objective, batch)
            with record_function("seedbed.backward"):
                self._scaled(loss.total).backward()
        if self._watch is not None:
            self._watch.end_micro_batch(counts=loss.weight.item() > 0)
        if self._reduction and share and not last:
            # Zeros: the sum of all leaves is handed out with the last.
            self._forget_gradients()
        return loss.total.detach(), loss.weight

    @torch.no_grad()
    def step(self, lr: float, total_weight: float, *, max_norm: float = math.inf) -> float:
        gradients = [local_part(p.grad)[0] for _, p in self._parameters if p.grad is not None]
        squares = self._exact_squares() if self._reduction else self._squares(gradients)
        if self._loss_scale:
            total_weight *= self._loss_scale.factor
        self._end_watch(total_weight)
        norm = self._agreed(squares) ** 0.5 / total_weight
        if math.isfinite(norm) and norm <= max_norm:
            clip_norm = self._config.clip_norm
            clip = min(1.0, clip_norm / (norm + 1e-6)) if clip_norm else 1.0
            torch._foreach_mul_(gradients, clip / total_weight)
            for parameter_group in self.optimizer.param_groups:
                parameter_group["lr"] = lr * parameter_group["lr_scale"]
            self._update()
            for average, (_, parameter) in zip(self._averages, self._parameters, strict=False):
                average.lerp_(local_part(parameter)[0], 1 - self._config.ema_decay)
        self._forget_gradients()
        if self._loss_scale:
            self._loss_scale.update(math.isfinite(norm))
        return norm

    def _agreed(self, squares: float) -> float:
        """The same number on all ranks, also where each has its own copy of the gradients."""
        if self.splits_parameters or self.group.num_ranks == 1:
            return squares
        largest = torch.tensor(squares, dtype=torch.float64, device=self.group.device)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return largest.item()

    def skip(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        self._forget_gradients()

    def recompute(self, objective: Objective, batch: Any) -> Tensor:
        with self._inference():
            self.model.train()
            # With gradients, as kernels may be others without; there is no backward.
            return objective.loss(self.model, batch).total.detach()

    def watch(self) -> None:
        self._watch = LayerNorms(self.model, [name for name, _ in self._parameters])

    def _end_watch(self, total_weight: float) -> None:
        if self._watch is None:
            return
        self.layer_norms = self._watch.end(
            [local_part(parameter)[0] for _, parameter in self._parameters],
            [
                None if parameter.grad is None else local_part(parameter.grad)[0]
                for _, parameter in self._parameters
            ],
            total_weight,
            self._sum_over_parts,
            self.sum_over_ranks,
        )
        self._watch = None

    def _update(self) -> None:
        weights = {index: local_part(parameter)[0] for index, (_, parameter) in enumerate(self._parameters)}
        gradients = {
            index: local_part(parameter.grad)[0]
            for index, (_, parameter) in enumerate(self._parameters)
            if parameter.grad is not None
        }
        shared = {index: weights[index] for index in self._owners.shapes if index in gradients}
        owned = self._owners.collect(shared)
        weights |= owned
        gradients |= self._owners.collect({index: gradients[index] for index in shared})
        for index, part in enumerate(self._parts):
            if index in owned or index not in self._owners.shapes:
                # Taken anew: an engine may move its storage before the first forward.
                part.data, part.grad = weights[index], gradients.get(index)
        self.optimizer.step()
        self._owners.hand_back(owned, shared)
        for index in owned:
            self._parts[index].data = self._placeholder(index)

    def _placeholder(self, index: int) -> Tensor:
        """What the optimizer has between steps: this rank's part, or the shape alone of a whole tensor."""
        local, shape, _ = local_part(self._parameters[index][1])
        if index not in self._owners.shapes:
            return local
        if self._owners.owns(index):
            return local.new_zeros(()).expand(shape)
        return local.new_empty((0,) * len(shape))

    def _forget_gradients(self) -> None:
        for (_, parameter), part in zip(self._parameters, self._parts, strict=True):
            parameter.grad = part.grad = None

    def _squares(self, gradients: list[Tensor]) -> float:
        norms = torch._foreach_norm(gradients)
        squares = torch.stack(norms).double().square().sum()
        return self._sum_over_parts(squares).item()

    def _exact_squares(self) -> float:
        """Summed per row by whoever holds it, then over all rows of the model in one order."""
        rows = [parameter.shape[0] if parameter.ndim else 1 for _, parameter in self._parameters]
        squares = torch.zeros(sum(rows), dtype=torch.float64, device=self.group.device)
        for (_, parameter), own in zip(self._parameters, squares.split(rows), strict=True):
            if parameter.grad is not None:
                local, _, offsets = local_part(parameter.grad)
                first = offsets[0] if offsets else 0
                own[first : first + len(local)] = row_squares(local)
        return self._sum_over_parts(squares).sum().item()

    def _sum_over_parts(self, values: Tensor) -> Tensor:
        if self.splits_parameters:
            dist.all_reduce(values)
        return values

    @torch.no_grad()
    def infer(self, function: Callable[[nn.Module], Any]) -> Any:
        with self._inference():
            return function(self.model)

    @contextlib.contextmanager
    def _inference(self) -> Iterator[None]:
        self.model.eval()
        with self._autocast():
            yield

    @torch.no_grad()
    def _swap_averages(self) -> None:
        for average, (_, parameter) in zip(self._averages, self._parameters, strict=False):
            local = local_part(parameter)[0]
            own = local.clone()
            local.copy_(average)
            average.copy_(own)

    def state(self, *, optimizer: bool = True) -> Iterator[Shard]:
        for name, parameter in self._parameters:
            if self._exposes_parts():
                yield Shard(f"model/{name}", *local_part(parameter))
        if self.group.rank == 0:
            for name, matrix in self._quantized.items():
                yield Shard(f"model/{name}", matrix.values(), matrix.shape, (0, 0))
        if not optimizer:
            return
        for average, (name, parameter) in zip(self._averages, self._parameters, strict=False):
            if self._exposes_parts():
                yield Shard(f"ema/{name}", average, *local_part(parameter)[1:])
        for index, (name, _) in enumerate(self._parameters):
            owned = index in self._owners.shapes
            for moment, value, shape, offsets in self._moments(index):
                # A number is held by every rank that has a part.
                if self._exposes_parts(owned) if value.ndim or owned else self.group.rank == 0:
                    yield Shard(f"optimizer/{name}/{moment}", value, shape, offsets)
        if self.group.rank == 0 and self._loss_scale:
            yield from self._loss_scale.state()
        if self.group.rank == 0 and "step" in self.optimizer.param_groups[0]:
            yield Shard(STEP, torch.tensor(self.optimizer.param_groups[0]["step"]), (), ())

    def _moments(self, index: int) -> Iterator[Shard]:
        """The optimizer's state of a parameter, as this rank has it, under its names in the optimizer."""
        _, shape, offsets = local_part(self._parameters[index][1])
        for moment, value in sorted(self.optimizer.state[self._parts[index]].items()):
            if index in self._owners.shapes:
                yield Shard(moment, value, tuple(value.shape), (0,) * value.ndim)
            else:
                yield Shard(moment, value, *((shape, offsets) if value.ndim else ((), ())))

    @abstractmethod
    def _exposes_parts(self, owned: bool = False) -> bool:
        """Whether this rank's parts, or what it owns, go into a checkpoint; each element from one rank."""

    def load_state(self, read: ReadShard, *, optimizer: bool = True, keep: Collection[str] = ()) -> None:
        if optimizer:
            self._create_optimizer_state()
        for index, (name, parameter) in enumerate(self._parameters):
            if name in keep:
                continue
            fill(Shard(f"model/{name}", *local_part(parameter)), read)
            if optimizer:
                for moment in self._moments(index):
                    fill(moment._replace(name=f"optimizer/{name}/{moment.name}"), read)
        for name, matrix in self._quantized.items():
            if name not in keep:
                values = read(f"model/{name}", matrix.shape, (0, 0), matrix.shape)
                matrix.put(values.to(self.group.device, torch.float32))
        if not optimizer:
            self._begin_averages()
            return
        for average, (name, parameter) in zip(self._averages, self._parameters, strict=False):
            fill(Shard(f"ema/{name}", average, *local_part(parameter)[1:]), read)
        for shard in self._loss_scale.state() if self._loss_scale else ():
            fill(shard, read)
        if "step" in self.optimizer.param_groups[0]:
            step = int(read(STEP, (), (), ()))
            for parameter_group in self.optimizer.param_groups:
                parameter_group["step"] = step

    @torch.no_grad()
    def _create_optimizer_state(self) -> None:
        # Optimizers create their state in their first step; one with no gradient and no learning
        # rate creates it, and what it does to weights is loaded over.
        for _, parameter in self._parameters:
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)
        for parameter_group in self.optimizer.param_groups:
            parameter_group["lr"] = 0.0
        self._update()
        self._forget_gradients()


def local_part(tensor: Tensor | None) -> tuple[Tensor, tuple[int, ...], tuple[int, ...]]:
    """(what this rank holds, global shape, where it begins) of a tensor, sharded or not."""
    assert tensor is not None
    if not isinstance(tensor, DTensor):
        return tensor.detach(), tuple(tensor.shape), (0,) * tensor.ndim
    _, offsets = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return tensor.to_local().detach(), tuple(tensor.shape), tuple(offsets)
