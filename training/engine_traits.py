"""What each engine cuts over the ranks, and what goes with it. Does not import torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Traits:
    """Of one engine."""

    cuts: frozenset[str]
    """What is cut over the ranks, of: weights, gradients, optimizer. The rest every rank holds whole."""
    offloads: tuple[str, ...] = ()
    """What can be kept in the host's memory; with parameters goes all else."""
    is_zero: bool = False
    """DeepSpeed's. Its sums over ranks are in an order of its own; its optimizer updates a copy of the
    weights, as runs of elements, wherever tensors end; gradients are its own until the update."""
    replicates: bool = False
    """A sharded model may exist several times (HSDP)."""
    gathers: bool = False
    """Parameters are gathered block by block, and may stay so until the backward."""
    gathers_within_blocks: bool = False
    """Parameters are gathered among the operations of a block."""


_STATE = frozenset({"gradients", "optimizer"})
_ALL = _STATE | {"weights"}
TRAITS = {
    "ddp": Traits(frozenset()),
    "fsdp": Traits(_ALL, offloads=("parameters",), replicates=True, gathers=True),
    "zero1": Traits(frozenset({"optimizer"}), offloads=("optimizer",), is_zero=True),
    "zero2": Traits(_STATE, offloads=("optimizer",), is_zero=True),
    "zero3": Traits(_ALL, offloads=("optimizer", "parameters"), is_zero=True, gathers_within_blocks=True),
}
"""Engine -> its traits."""
MAX_ZERO_BUCKET = 50_000_000
"""Elements of the buffer in which DeepSpeed shares gradients."""
