"""Exact mode: sums whose bits depend on the batch alone, not on how many ranks computed it.

A step's gradient is a sum over leaves: micro-batches, or lanes of consecutive ones. Whoever owns a part of
the gradient receives that part of every leaf, and adds them up in the order of their indices as a binary
counter does, so that the tree of additions is a function of the number of leaves. Additions of single
elements are the same everywhere (IEEE 754), whatever the shard; so the sums are.

Suffixes: W ranks; L leaves; N elements of a shard; R rows.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from training.batch_layout import BatchLayout


class PartialSums:
    """A binary counter of partial sums: level i holds the sum of 2^i consecutive leaves, or nothing."""

    def __init__(self) -> None:
        self._levels: list[Tensor | None] = []
        self.num_leaves = 0

    def add(self, leaf: Tensor) -> None:
        """The next leaf in order; it is copied."""
        self.num_leaves += 1
        carried: Tensor | None = None
        for level, partial in enumerate(self._levels):
            if partial is None:
                self._levels[level] = leaf.clone() if carried is None else carried
                return
            carried = partial.add_(leaf if carried is None else carried)
            self._levels[level] = None
        self._levels.append(leaf.clone() if carried is None else carried)

    def total(self) -> Tensor:
        """The sum of all leaves; 0.0 where each of them was -0.0."""
        found = [partial for partial in self._levels if partial is not None]
        total = found[0]
        for partial in found[1:]:
            total = partial.add_(total)
        return total.add_(0.0)


class ExactReduction:
    """The gradient sums of one step, by whatever the engine reduces in one call: `key`."""

    def __init__(self, layout: BatchLayout) -> None:
        self.layout = layout
        self._sums: dict[Hashable, PartialSums] = {}
        self._turn = 0

    def ends_leaf(self) -> bool:
        """To be asked once per micro-batch of this rank: whether its leaf is whole with this one."""
        self._turn = self._turn % self.layout.turns + 1
        return self._turn % self.layout.micro_batches_per_leaf == 0

    def push(self, key: Hashable, leaves_WN: Tensor) -> Tensor | None:
        """Add what every rank contributes to this rank's part; the total [N] with the last leaf, else None.

        Rows beyond the number of leaves belong to ranks that had none left, and are dropped.
        """
        sums = self._sums.setdefault(key, PartialSums())
        for leaf in leaves_WN[: self.layout.num_leaves - sums.num_leaves]:
            sums.add(leaf)
        return self._sums.pop(key).total() if sums.num_leaves == self.layout.num_leaves else None


class ExactReduceScatter:
    """What `FSDPModule.set_custom_reduce_scatter` takes: an all-to-all in place of a reduce-scatter.

    The volume is the same. The sum is handed out at the last leaf; before, zeros are. `all_reduce_hook` does
    the same for one rank alone, where FSDP2 calls no reduce-scatter.
    """

    def __init__(self, reduction: ExactReduction, key: Hashable) -> None:
        self.reduction, self.key = reduction, key

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """A buffer that the collective reads or writes."""
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: dist.ProcessGroup,
        op: object,
        async_op: bool = False,
    ) -> None:
        received = torch.empty_like(input_tensor)
        dist.all_to_all_single(received, input_tensor, group=group)
        self._hand_out(received.view(group.size(), -1), output_tensor)

    def all_reduce_hook(self, reduced: Tensor) -> None:
        """For a group of one rank: `reduced` is its only leaf."""
        self._hand_out(reduced.unsqueeze(0), reduced)

    def _hand_out(self, leaves_WN: Tensor, out: Tensor) -> None:
        total = self.reduction.push(self.key, leaves_WN)
        if total is None:
            out.zero_()
        else:
            out.copy_(total)


def use_exact_reduction(modules: Iterable[FSDPModule], reduction: ExactReduction, num_ranks: int) -> None:
    """Have FSDP2 sum the gradients of these modules through `reduction`."""
    for key, module in enumerate(modules):
        comm = ExactReduceScatter(reduction, key)
        if num_ranks > 1:
            module.set_custom_reduce_scatter(comm)  # type: ignore[arg-type]
        else:
            module.set_all_reduce_hook(comm.all_reduce_hook)


def exact_ddp_hook(
    reduction: ExactReduction, num_ranks: int
) -> Callable[[object, dist.GradBucket], torch.futures.Future[Tensor]]:
    """For DistributedDataParallel: each rank sums its part of a bucket, then all share it."""

    def hook(_: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        gradient = bucket.buffer()
        size = -(-gradient.numel() // num_ranks)
        padded = gradient.new_zeros(num_ranks * size)
        padded[: gradient.numel()] = gradient
        received = torch.empty_like(padded)
        dist.all_to_all_single(received, padded)
        total = reduction.push(bucket.index(), received.view(num_ranks, size))
        if total is None:
            gradient.zero_()
        else:
            dist.all_gather_into_tensor(padded, total)
            gradient.copy_(padded[: gradient.numel()])
        done: torch.futures.Future[Tensor] = torch.futures.Future()
        done.set_result(gradient)
        return done

    return hook


def row_squares(gradient: Tensor) -> Tensor:
    """[R, ...] -> [R]: each row's sum of squares in float64, added in halves.

    Element-wise additions alone: a library's sum along rows may go another way for another number of rows.
    """
    if not gradient.numel():
        # The part of a rank that has none of this tensor's rows.
        return gradient.new_zeros(len(gradient), dtype=torch.float64)
    squares = gradient.reshape(gradient.shape[0] if gradient.ndim else 1, -1).double().square()
    while (width := squares.shape[1]) > 1:
        half = width // 2
        odd = squares[:, 2 * half :]
        squares = squares[:, :half] + squares[:, half : 2 * half]
        if odd.shape[1]:
            squares[:, :1] += odd
    return squares[:, 0]
