"""Tensors that an update rule needs whole: each is owned by one rank, which updates it for all.

Muon orthogonalises a matrix, Adafactor and LAMB take norms of a tensor: a shard is not enough. The owner gets
the shards of weight and gradient from all ranks, runs the rule on whole tensors, and sends the new weight
back; its state never leaves it. So each tensor is updated once, whatever the number of ranks, by the
same operations: bits do not depend on who did it. Owners are balanced by size (the largest tensor first, each
to whoever has least: Graham 1969).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

Shape = tuple[int, ...]


def balanced_owners(shapes: Mapping[int, Shape], num_ranks: int) -> dict[int, int]:
    """Key -> owner, the same on every rank."""
    loads = [0] * num_ranks
    owners = {}
    for key in sorted(shapes, key=lambda key: (-torch.Size(shapes[key]).numel(), key)):
        owners[key] = loads.index(min(loads))
        loads[owners[key]] += torch.Size(shapes[key]).numel()
    return owners


class Owners(ABC):
    """Of tensors by key, among the ranks of `group` (None: all)."""

    def __init__(
        self, shapes: Mapping[int, Shape], rank: int, num_ranks: int, group: dist.ProcessGroup | None = None
    ) -> None:
        self.shapes, self.rank, self.num_ranks, self.group = dict(shapes), rank, num_ranks, group
        self.owner = balanced_owners(shapes, num_ranks)

    def owns(self, key: int) -> bool:
        """Whether this rank updates the tensor."""
        return self.owner.get(key) == self.rank

    def _of(self, rank: int, keys: Mapping[int, Tensor]) -> list[int]:
        return [key for key in sorted(keys) if self.owner[key] == rank]

    @abstractmethod
    def collect(self, parts: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """The whole tensors that this rank owns; every rank gives its parts of the same keys."""

    @abstractmethod
    def hand_back(self, wholes: Mapping[int, Tensor], parts: Mapping[int, Tensor]) -> None:
        """Fill every rank's parts from the whole tensors of their owners."""


class OwnersOfCopies(Owners):
    """Every rank holds each tensor whole: its part is the tensor."""

    def collect(self, parts: Mapping[int, Tensor]) -> dict[int, Tensor]:
        return {key: parts[key] for key in self._of(self.rank, parts)}

    def hand_back(self, wholes: Mapping[int, Tensor], parts: Mapping[int, Tensor]) -> None:
        for owner in range(self.num_ranks if self.num_ranks > 1 else 0):
            tensors = [parts[key] for key in self._of(owner, parts)]
            if tensors:
                packed = torch.cat([tensor.flatten() for tensor in tensors])
                dist.broadcast(packed, src=owner, group=self.group)
                _unpack(packed, tensors)


class OwnersOfShards(Owners):
    """Every rank holds rows of each tensor, as `torch.chunk` hands them out."""

    def _rows(self, key: int, rank: int) -> slice:
        num_rows = self.shapes[key][0]
        size = -(-num_rows // self.num_ranks)
        return slice(min(rank * size, num_rows), min((rank + 1) * size, num_rows))

    def collect(self, parts: Mapping[int, Tensor]) -> dict[int, Tensor]:
        if not parts:
            return {}
        like = next(iter(parts.values()))
        wholes = {key: like.new_empty(self.shapes[key]) for key in self._of(self.rank, parts)}
        self._exchange(
            [[parts[key] for key in self._of(rank, parts)] for rank in range(self.num_ranks)],
            [
                [whole[self._rows(key, rank)] for key, whole in wholes.items()]
                for rank in range(self.num_ranks)
            ],
            like,
        )
        return wholes

    def hand_back(self, wholes: Mapping[int, Tensor], parts: Mapping[int, Tensor]) -> None:
        if not parts:
            return
        like = next(iter(parts.values()))
        self._exchange(
            [
                [whole[self._rows(key, rank)] for key, whole in wholes.items()]
                for rank in range(self.num_ranks)
            ],
            [[parts[key] for key in self._of(rank, parts)] for rank in range(self.num_ranks)],
            like,
        )

    def _exchange(self, sent: list[list[Tensor]], received: list[list[Tensor]], like: Tensor) -> None:
        """Give rank r the tensors sent[r], and fill received[r] with what r gave, in one collective."""
        packed = torch.cat([like.new_empty(0), *(tensor.flatten() for tensors in sent for tensor in tensors)])
        counts = [sum(tensor.numel() for tensor in tensors) for tensors in received]
        arrived = like.new_empty(sum(counts))
        dist.all_to_all_single(
            arrived,
            packed,
            output_split_sizes=counts,
            input_split_sizes=[sum(tensor.numel() for tensor in tensors) for tensors in sent],
            group=self.group,
        )
        _unpack(arrived, [tensor for tensors in received for tensor in tensors])


def _unpack(packed: Tensor, tensors: list[Tensor]) -> None:
    for tensor, values in zip(tensors, packed.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(values.view(tensor.shape))
