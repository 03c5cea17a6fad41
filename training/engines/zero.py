"""DeepSpeed's ZeRO: optimizer state (stage 1), gradients (2) and parameters (3) are spread over the ranks.

DeepSpeed cuts the flattened parameters of a group into equal parts, wherever rows end. A rank exposes the
boxes that make up its run of elements, so that a checkpoint needs no communication and fits any engine.
"""

import contextlib
import math
import os
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any, ClassVar, NamedTuple, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.profiler import record_function

from models.families import learning_rate_scale
from training.config import Config
from training.engines.base import Draw, Group, ReadShard, Shard
from training.engines.rank_engine import RankEngine, fill, prepare_blocks
from training.objectives import LossSum, Objective
from training.optimizers import make_optimizer
from training.zero_settings import zero_settings


class Part(NamedTuple):
    """Elements `start` to `start` + `size` of a parameter: from `offset` on in what the optimizer updates."""

    start: int
    size: int
    updated: nn.Parameter
    offset: int

    def of(self, values: Tensor) -> Tensor:
        """This part's elements of `updated`, or of a moment of it."""
        return values.detach().narrow(0, self.offset, self.size)


class ZeroEngine(RankEngine):
    """See `training.engines.base.Engine`; the arithmetic of a step is DeepSpeed's and torch's."""

    stage: ClassVar[int]

    def __init__(self, model: nn.Module, draw: Draw, config: Config, group: Group) -> None:
        import deepspeed

        super().__init__(model, draw, config, group)
        self._parameters = list(model.named_parameters())
        self._shapes = {name: _shape(parameter) for name, parameter in self._parameters}
        optimizer = make_optimizer(
            self._parameters, config.optimizer, partial(learning_rate_scale, config.model)
        )
        self._engine, *_ = deepspeed.initialize(
            model=_Run(model),
            optimizer=optimizer,
            config=zero_settings(config),
            dist_init_required=False,
        )
        self._optimizer: torch.optim.Optimizer = self._engine.optimizer.optimizer
        self._max_norm = self._norm = math.inf
        self._look_before_update()
        self._averages: dict[str, Tensor] = {}
        """Of this rank's parts of parameters, flat; none without `optimizer.ema_decay`."""

    @classmethod
    def prepare(cls, build: Callable[[], nn.Module], draw: Draw, config: Config, group: Group) -> Self:
        deepspeed = _joined(group)
        if cls.stage == 3:
            with deepspeed.zero.Init(config_dict_or_path=zero_settings(config)):
                model = build()
        else:
            with torch.device("meta"):
                model = build()
            model.to_empty(device=group.device)
        compiled = prepare_blocks(model, config.engine)
        engine = cls(model, draw, config, group)
        engine.compiled = compiled
        engine.initialize()
        return engine

    def initialize(self) -> None:
        self._optimizer.state.clear()
        for name, part in self._parts():
            values = torch.from_numpy(self._draw(name, part.start, part.start + part.size))
            part.of(part.updated).copy_(values)
        self._publish()
        self._begin_averages()
        self._begin_loss_scale()

    def _begin_averages(self) -> None:
        if self._config.ema_decay:
            self._averages = {name: part.of(part.updated).clone() for name, part in self._parts()}

    def micro_batch(self, objective: Objective, batch: Any, *, last: bool) -> tuple[Tensor, Tensor]:
        self._engine.train()
        self._engine.set_gradient_accumulation_boundary(last)
        with record_function("seedbed.forward"):
            loss = LossSum(*self._engine(self._autocast(), lambda model: tuple(objective.loss(model, batch))))
        with record_function("seedbed.backward"):
            self._engine.backward(self._scaled(loss.total), scale_wrt_gas=False)
        return loss.total.detach(), loss.weight

    def _look_before_update(self) -> None:
        """Have DeepSpeed take a norm above the largest for an overflow: it updates nothing then."""
        optimizer = self._engine.optimizer
        name = "_get_norm_groups" if self.stage == 3 else "scaled_global_norm"
        measure = getattr(optimizer, name)

        def measured(*arguments: Any, **options: Any) -> Any:
            found = measure(*arguments, **options)
            norms = found if self.stage == 3 else [found]
            norm = torch.linalg.vector_norm(torch.stack([torch.as_tensor(one).float() for one in norms]))
            # Negative where DeepSpeed found numbers that are not finite.
            is_finite = all(float(one) >= 0 for one in norms)
            self._norm = norm.item() / optimizer.loss_scaler.cur_scale if is_finite else math.inf
            if self._norm <= self._max_norm:
                return found
            overflow = torch.as_tensor(norms[0]).new_tensor(math.inf, dtype=torch.float32)
            return [overflow] if self.stage == 3 else overflow

        setattr(optimizer, name, measured)

    def skip(self) -> None:
        self._update(0.0, 1.0, -1.0)

    def step(self, lr: float, total_weight: float, *, max_norm: float = math.inf) -> float:
        norm = self._update(lr, total_weight, max_norm)
        if math.isfinite(norm) and norm <= max_norm:
            for name, part in self._parts() if self._averages else ():
                self._averages[name].lerp_(part.of(part.updated), 1 - self._config.ema_decay)
        if self._loss_scale:
            self._loss_scale.update(math.isfinite(norm))
        return norm

    def _update(self, lr: float, total_weight: float, max_norm: float) -> float:
        for parameter_group in self._optimizer.param_groups:
            parameter_group["lr"] = lr * parameter_group["lr_scale"]
        # Gradients are means over the ranks of sums over micro-batches. What a loss was scaled by is divided
        # out of them before they are clipped: with this, they are means over the weight of the step.
        scaler = self._engine.optimizer.loss_scaler
        scaler.cur_scale = (
            total_weight * (self._loss_scale.factor if self._loss_scale else 1.0) / self.group.num_ranks
        )
        self._max_norm = max_norm
        self._engine.step()
        scaler.cur_scale = 1.0
        return self._norm

    def recompute(self, objective: Objective, batch: Any) -> Tensor:
        raise NotImplementedError("refused by the configuration: a forward of DeepSpeed's needs its backward")

    def watch(self) -> None:
        raise NotImplementedError("refused by the configuration: gradients are DeepSpeed's until the update")

    @torch.no_grad()
    def infer(self, function: Callable[[nn.Module], Any]) -> Any:
        self._engine.eval()
        return self._engine(self._autocast(), function)

    def _swap_averages(self) -> None:
        for name, part in self._parts():
            weights = part.of(part.updated)
            own = weights.clone()
            weights.copy_(self._averages[name])
            self._averages[name].copy_(own)
        self._publish()

    def state(self, *, optimizer: bool = True) -> Iterator[Shard]:
        for name, part in self._parts():
            yield from self._boxes(f"model/{name}", name, part, part.of(part.updated))
        if not optimizer:
            return
        for name, part in self._parts():
            if self._averages:
                yield from self._boxes(f"ema/{name}", name, part, self._averages[name])
            for moment, value in sorted(self._optimizer.state[part.updated].items()):
                if value.ndim:
                    yield from self._boxes(f"optimizer/{name}/{moment}", name, part, part.of(value))
                elif part.start == 0:
                    yield Shard(f"optimizer/{name}/{moment}", value, (), ())
        if self.group.rank == 0 and self._loss_scale:
            yield from self._loss_scale.state()

    def _boxes(self, key: str, name: str, part: Part, own: Tensor) -> Iterator[Shard]:
        """The part's elements `own`, as shards of the tensor `key` of the parameter's shape."""
        shape = self._shapes[name]
        for offsets, extent in boxes(shape, part.start, part.start + part.size):
            box, own = own[: math.prod(extent)], own[math.prod(extent) :]
            yield Shard(key, box.view(extent), shape, offsets)

    def load_state(self, read: ReadShard, *, optimizer: bool = True, keep: Collection[str] = ()) -> None:
        try:
            self._fill(read, optimizer, keep)
        finally:
            # All ranks take part, also when one of them met a damaged file.
            self._publish()
        if not optimizer:
            self._begin_averages()
            return
        for name, part in self._parts() if self._averages else ():
            for shard in self._boxes(f"ema/{name}", name, part, self._averages[name]):
                fill(shard, read)
        for shard in self._loss_scale.state() if self._loss_scale else ():
            fill(shard, read)

    def _fill(self, read: ReadShard, optimizer: bool, keep: Collection[str]) -> None:
        if optimizer:
            self._create_optimizer_state()
        for name, part in self._parts():
            if name in keep:
                continue
            shards = [*self._boxes(f"model/{name}", name, part, part.of(part.updated))]
            for moment, value in self._optimizer.state[part.updated].items() if optimizer else ():
                key = f"optimizer/{name}/{moment}"
                if value.ndim:
                    shards += self._boxes(key, name, part, part.of(value))
                else:
                    shards.append(Shard(key, value, (), ()))
            for shard in shards:
                fill(shard, read)

    @torch.no_grad()
    def _create_optimizer_state(self) -> None:
        # Optimizers create it in their first step; what one without gradients does to weights is loaded over.
        for parameter_group, updated in zip(self._optimizer.param_groups, self._updated(), strict=True):
            given, parameter_group["params"] = parameter_group["params"], updated
            parameter_group["lr"] = 0.0
            for values in updated:
                values.grad = torch.zeros_like(values)
            self._optimizer.step()
            for values in updated:
                values.grad = None
            parameter_group["params"] = given

    def _parts(self) -> Iterator[tuple[str, Part]]:
        """What this rank holds of each parameter, by name; a rank may hold nothing of one."""
        for name, parameter in self._parameters:
            part = self._part(parameter, math.prod(self._shapes[name]))
            if part is not None and part.size:
                yield name, part

    @abstractmethod
    def _part(self, parameter: nn.Parameter, size: int) -> Part | None:
        """This rank's part of a parameter of `size` elements."""

    @abstractmethod
    def _updated(self) -> list[list[nn.Parameter]]:
        """What the optimizer updates, for each of its groups."""

    @abstractmethod
    def _publish(self) -> None:
        """Give the model the weights that the optimizer's parts now have."""


class GatheredZeroEngine(ZeroEngine):
    """Stages 1 and 2: every rank has the whole parameters, and the optimizer's part of them once more."""

    def _part(self, parameter: nn.Parameter, size: int) -> Part | None:
        found = parameter._hp_mapping  # type: ignore[attr-defined]
        if found is None:
            return None
        updated = self._engine.optimizer.single_partition_of_fp32_groups[found.param_group_index]
        whole, own = found.lp_fragment_address, found.hp_fragment_address
        return Part(whole.start, whole.numel, updated, own.start)

    def _updated(self) -> list[list[nn.Parameter]]:
        return [[values] for values in self._engine.optimizer.single_partition_of_fp32_groups]

    def _publish(self) -> None:
        self._engine.optimizer.update_lp_params()


class Zero1Engine(GatheredZeroEngine):
    """Optimizer state is spread."""

    stage = 1


class Zero2Engine(GatheredZeroEngine):
    """Gradients are spread too."""

    stage = 2


class Zero3Engine(ZeroEngine):
    """Parameters are spread too, and gathered around the forward and backward of each module."""

    stage = 3

    def _part(self, parameter: nn.Parameter, size: int) -> Part | None:
        zero = self._engine.optimizer
        number, offset, room = zero.grad_position[zero.get_param_id(parameter)]
        start = self.group.rank * room
        # The last parts may end in padding.
        own = max(0, min(room, size - start))
        return Part(start, own, zero.fp32_partitioned_groups_flat[number], offset)

    def _updated(self) -> list[list[nn.Parameter]]:
        zero = self._engine.optimizer
        found: list[list[nn.Parameter]] = [[] for _ in self._optimizer.param_groups]
        for number, values in enumerate(zero.fp32_partitioned_groups_flat):
            found[zero.sub_group_to_group_id[number]].append(values)
        return found

    def _publish(self) -> None:
        named = dict(self._parameters)
        for name, part in self._parts():
            named[name].ds_tensor[: part.size].copy_(part.of(part.updated))  # type: ignore[attr-defined]
        # Small ones stay gathered: they are gathered anew.
        if persistent := self._engine.optimizer.persistent_parameters:
            persistent[0].partition(persistent)
            persistent[0].all_gather(persistent)


class _Run(nn.Module):
    """What DeepSpeed wraps: whatever an objective calls of the model runs within `forward`.

    Autocast is entered here, since DeepSpeed turns off one that it finds on.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, autocast: contextlib.AbstractContextManager[object], run: Callable[[nn.Module], Any]
    ) -> Any:
        with autocast:
            return run(self.model)


def boxes(shape: tuple[int, ...], start: int, stop: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(offsets, extent) of the boxes that make up elements `start` to `stop` of a tensor, in order.

    The end of a row, whole rows, the beginning of a row: at most 2 x dimensions - 1 of them.
    """
    if not shape and start < stop:
        yield (), ()
        return
    size = math.prod(shape[1:])
    while start < stop:
        row, inner = divmod(start, size)
        if not inner and (num_rows := (stop - start) // size):
            yield (row, *(0 for _ in shape[1:])), (num_rows, *shape[1:])
            start += num_rows * size
        else:
            end = min(stop, (row + 1) * size)
            for offsets, extent in boxes(shape[1:], inner, end - row * size):
                yield (row, *offsets), (1, *extent)
            start = end


def _joined(group: Group) -> Any:
    """DeepSpeed, using this process group."""
    # Chosen when the package is first imported.
    os.environ["DS_ACCELERATOR"] = group.device.type
    os.environ["LOCAL_RANK"] = str(group.device.index or 0)
    import deepspeed

    deepspeed.utils.logger.setLevel("WARNING")
    # Its own collectives for processes of one CPU are compiled first; gloo needs no compiler.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend=dist.get_backend(), auto_mpi_discovery=False)
    return deepspeed


def _shape(parameter: nn.Parameter) -> tuple[int, ...]:
    """Stage 3 leaves an empty tensor in a parameter's place, and remembers its shape."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))
