"""Silent corruption: a processor that gives other bits for the same work is found by doing it twice."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from seedbed.errors import Corrupted
from training.objectives import seed_dropout, with_step_weights
from training.state import TrainState

if TYPE_CHECKING:
    from training.trainer import Trainer


def compute_twice(
    trainer: "Trainer", batches: list[Any], losses: list[Tensor | None], state: TrainState
) -> None:
    """Compute the loss of each rank's first micro-batch again.

    `losses` are those of the step's micro-batches, None at those of other ranks. Raises Corrupted, on all
    ranks, with the names of those that got other bits.
    """
    group, step = trainer.group, state.step + 1
    index = trainer.layout.micro_batch(group.rank, 0)
    batch = with_step_weights(batches, trainer.engine.sum_over_ranks)[0]
    seed_dropout(trainer.config.run.seed, state.position, index)
    again = trainer.engine.recompute(trainer.objective, trainer.on_device(batch))
    before = losses[index] if index is not None else None
    # Bits, not values: a loss that is not a number is for the guards.
    differs = before is not None and not torch.equal(_bits(before), _bits(again))
    flags = [float(differs and rank == group.rank) for rank in range(group.num_ranks)]
    if ranks := [rank for rank, flag in enumerate(trainer.engine.sum_over_ranks(flags)) if flag]:
        named = ", ".join(map(str, ranks))
        message = f"step {step}: rank(s) {named} computed a loss twice and got two (guards.recompute_every)"
        trainer.recorder.event("silent_corruption", message, step=step, wrong_ranks=ranks)
        raise Corrupted(message, "take the machines of these ranks out of service")


def _bits(loss: Tensor) -> Tensor:
    return loss.reshape(1).view(torch.uint8)
