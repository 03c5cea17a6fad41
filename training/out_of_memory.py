"""What to do when memory runs out: which part takes most by the plan, and what makes that smaller."""

from pathlib import Path

from seedbed.errors import TrainingError
from seedbed.progress import human_bytes
from training.config import Config
from training.plan import memory_by_part

# What torch's CPU allocator and its shared memory say; they raise a plain RuntimeError.
SIGNS = ("can't allocate memory", "not enough memory", "Cannot allocate memory")
SHARDED = (
    'engine.name = "fsdp" with engine.reshard_after_forward = true',
    "more engine.num_ranks",
    "a smaller model.width or model.num_layers",
)
REMEDIES = {
    "activations": (
        'engine.checkpointing = "full"',
        "a smaller batch.micro_batch_size",
        "a smaller model.context",
    ),
    "logits": (
        "a larger objective.num_chunks",
        "a smaller batch.micro_batch_size",
        "a smaller model.context",
    ),
    "weights": SHARDED,
    "gradients": SHARDED,
    "communication": SHARDED,
    "exact_sums": (
        "more engine.num_ranks",
        "a smaller engine.exact_lanes",
        "a larger batch.micro_batch_size",
    ),
    "optimizer": (*SHARDED[:2], 'optimizer.name = "sgd"'),
    "checkpoint_copy": (*SHARDED[:2], 'optimizer.name = "sgd"'),
}
"""Part of the plan -> three settings that shrink it."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or on the host."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


def kernel_kills() -> int:
    """Processes that this machine's kernel has killed for want of memory since it started; 0 if unknown."""
    try:
        counters = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    except (OSError, ValueError):
        return 0
    return int(counters.get("oom_kill", 0))


def explained(error: BaseException, config: Config, rank: int) -> TrainingError:
    """The same failure, with the part that takes most and three settings against it."""
    parts = memory_by_part(config)
    # What no setting changes is nobody's mistake.
    total, _, _ = (parts.pop(name) for name in ("total", "not_at_once", "libraries"))
    # What is computed again is made smaller by what makes activations so.
    parts["activations"] += parts.pop("block_backward")
    largest = max(parts, key=lambda part: parts[part])
    first, second, third = REMEDIES[largest]
    cause = (str(error).strip() or type(error).__name__).split("\n")[0]
    return TrainingError(
        f"rank {rank} ran out of memory; by the plan the largest part are its {largest}: "
        f"{human_bytes(parts[largest])} of {human_bytes(total)} ({cause})",
        f"{first}, {second}, or {third}; what cannot change on resume can with --fork",
    )
