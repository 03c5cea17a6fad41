"""Who does what in an iteration: roles, each a group of workers, one on every rank.

How a method's work is dealt out is said where it is defined. `@shared_out` cuts what it is given into blocks
of a fixed size, gives block i to rank i mod W, or, of a role that is elsewhere, to a worker there, and puts
the results together in order on every rank: they do not depend on how many ranks there are. `@together` is
called by all ranks at once, with the same; of a role that is elsewhere, by all workers there. On which
processes ranks and workers run, in this one, in others or on a cluster, is the launcher's affair.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from models.generation import Completion, Request
from models.generation import Engine as Generator
from models.generation.weights import tensors_hash
from models.lora import merged
from models.transformer import Transformer
from training.config import Config
from training.engines import Engine, Group
from training.rl.elsewhere import Elsewhere
from training.rl.invariants import Broken
from training.rl.objectives import token_log_probs
from training.rl.rollouts import Rollout, tensors_of
from training.rl.weights import whole_weights

T = TypeVar("T")
R = TypeVar("R")
Method = Callable[[Any, Sequence[T]], list[R]]


BLOCK = 32
"""Answers that are written or judged together, where that changes bits."""


class Worker:
    """One rank's part of a group; `block` items are worked on at a time."""

    is_collective = False
    """Whether all ranks have to call a method equally often: where a model is cut over them."""

    def __init__(self, group: Group, block: int, elsewhere: Elsewhere | None = None) -> None:
        """With `elsewhere` the work is done there, and this rank needs nothing to do it with."""
        self.group, self.block, self.elsewhere = group, block, elsewhere

    def of_rank_0(self, ask: Callable[[], Any]) -> Any:
        """What `ask` returns on rank 0, on every rank."""
        found = [ask() if self.group.rank == 0 else None]
        if self.group.num_ranks > 1:
            dist.broadcast_object_list(found, src=0)
        return found[0]


def shared_out(method: Method[T, R]) -> Method[T, R]:
    """See the module."""

    @functools.wraps(method)
    def dealt(self: Worker, items: Sequence[T]) -> list[R]:
        if self.elsewhere is None:
            return brought_together(self, own_blocks(self, method, items))
        if self.is_collective:
            return _of_all(self, self.elsewhere, method.__name__, items)
        is_asking = self.group.rank == 0
        found = self.elsewhere.ask(method.__name__, blocks_of(self, items)) if is_asking else {}
        return brought_together(self, found)

    return dealt


def blocks_of(self: Worker, items: Sequence[T]) -> list[Sequence[T]]:
    """What is worked on at a time."""
    return [items[first : first + self.block] for first in range(0, len(items), self.block)]


def own_blocks(self: Worker, method: Method[T, R], items: Sequence[T]) -> dict[int, list[R]]:
    """What this rank does of the work: the results of its blocks, by number."""
    blocks = blocks_of(self, items)
    ranks = self.group.num_ranks
    own: dict[int, list[R]] = {}
    for turn in range(-(-len(blocks) // ranks)):
        index = turn * ranks + self.group.rank
        if index < len(blocks):
            own[index] = method(self, blocks[index])
        elif self.is_collective:
            method(self, blocks[0])
    return own


def brought_together(self: Worker, own: dict[int, list[R]]) -> list[R]:
    """The results of all ranks, in order."""
    parts: list[dict[int, list[R]]] = [own] * self.group.num_ranks
    if self.group.num_ranks > 1:
        dist.all_gather_object(parts, own)
    found = {index: results for part in parts for index, results in part.items()}
    return [result for index in sorted(found) for result in found[index]]


def together(method: Callable[..., R]) -> Callable[..., R]:
    """See the module: nothing is dealt out."""

    @functools.wraps(method)
    def called(self: Worker, *arguments: Any) -> R:
        if self.elsewhere is None:
            return method(self, *arguments)
        return _of_all(self, self.elsewhere, method.__name__, *arguments)

    return called


def _of_all(self: Worker, elsewhere: Elsewhere, method: str, *arguments: Any) -> Any:
    """What all workers of a role that is elsewhere make of it together."""
    return self.of_rank_0(lambda: elsewhere.answered(elsewhere.begin(method, arguments)))


class Policy(Worker):
    """The model that is trained, and the generator that has its weights."""

    is_collective = True

    def __init__(self, engine: Engine, config: Config, temperature: float) -> None:
        super().__init__(engine.group, config.batch.micro_batch_size)
        self.engine, self.config, self.temperature = engine, config, temperature
        self._generator: Generator | None = None
        self.answers = _Answers(engine.group)
        self.hash = ""

    @together
    def refresh(self) -> int:
        """Give the generator the newest weights; returns their bytes. Broken when it did not get them."""
        tensors = {
            name: value.clone() if self._generator is None else value
            for name, value in whole_weights(self.engine, self.config.model)
        }
        config, tensors = merged(self.config.model, tensors)  # type: ignore[arg-type]
        if self.config.engine.precision == "bf16":
            tensors = {name: value.bfloat16() for name, value in tensors.items()}
        if self._generator is None:
            with torch.device("meta"):
                model = Transformer(config)
            model.load_state_dict(tensors, assign=True)
            self._generator = Generator(model.eval().requires_grad_(False))
        else:
            self._generator.load_weights(tensors)
        self.hash = self._generator.weights_hash()
        if self.hash != tensors_hash(tensors):
            raise Broken("weights", "the generator has other weights than it was sent", "report it")
        self.answers.generator = self._generator
        return sum(value.nbytes for value in tensors.values())

    @together
    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """An answer to each."""
        return self.all_answers(self.own_answers(requests))

    def own_answers(self, requests: Sequence[Request]) -> dict[int, list[Completion]]:
        """This rank's share of them, which no other rank has to wait for."""
        assert self._generator is not None
        is_free = self._generator.batch_invariant
        self.answers.block = -(-len(requests) // self.group.num_ranks) if is_free else BLOCK
        return own_blocks(self.answers, _Answers.complete, requests)

    def all_answers(self, own: dict[int, list[Completion]]) -> list[Completion]:
        """The shares of all ranks."""
        return brought_together(self.answers, own)

    @shared_out
    def log_probs(self, rollouts: Sequence[Rollout]) -> list[Tensor]:
        """Of each answer's tokens, by the trainer's own forward."""
        batch = tensors_of(rollouts, 0)
        tokens, mask = batch.tokens.to(self.group.device), batch.mask.to(self.group.device)

        def computed(model: nn.Module) -> Tensor:
            return token_log_probs(model, tokens, mask, self.temperature)[0]

        return rows(self.engine.infer(computed).float().cpu(), batch.mask)


class _Answers(Worker):
    """Generation, apart from what trains: texts of a block grow side by side."""

    generator: Generator | None = None

    def __init__(self, group: Group) -> None:
        super().__init__(group, BLOCK)

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        assert self.generator is not None
        return self.generator.complete(requests)


class Reference(Worker):
    """The model that the policy is to stay near to; it does not learn."""

    def __init__(
        self,
        model: Transformer | None,
        group: Group,
        config: Config,
        temperature: float,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        """The model may be missing where the role is elsewhere."""
        super().__init__(group, config.batch.micro_batch_size, elsewhere)
        self.model = model.to(group.device).eval().requires_grad_(False) if model else None
        self.temperature = temperature
        self._dtype = {"bf16": torch.bfloat16}.get(config.engine.precision)

    @shared_out
    @torch.no_grad()
    def log_probs(self, rollouts: Sequence[Rollout]) -> list[Tensor]:
        """Of each answer's tokens."""
        assert self.model is not None
        batch = tensors_of(rollouts, 0)
        device = self.group.device
        with torch.autocast(device.type, dtype=self._dtype, enabled=self._dtype is not None):
            found, _ = token_log_probs(
                self.model, batch.tokens.to(device), batch.mask.to(device), self.temperature
            )
        return rows(found.float().cpu(), batch.mask)


def rows(values_BT: Tensor, mask_BT: Tensor) -> list[Tensor]:
    """Of each answer what stands at its tokens."""
    return [values_T[mask_T].clone() for values_T, mask_T in zip(values_BT, mask_BT, strict=True)]
