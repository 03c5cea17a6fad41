"""Going back: to a checkpoint before a run's trouble began, from which it passes over the data since.

What is passed over is written down beside the checkpoints before anything else, and with every later one.
"""

from typing import TYPE_CHECKING

from seedbed.errors import RolledBack, TrainingError
from training.checkpoint import layout
from training.guards import Verdict
from training.state import TrainState

if TYPE_CHECKING:
    from training.trainer import Trainer


def roll_back(trainer: "Trainer", state: TrainState, verdict: Verdict) -> None:
    """Abandon the steps since the trouble began, and end this attempt.

    Raises RolledBack, on all ranks; TrainingError when that was done `guards.max_rollbacks` times already.
    """
    assert verdict.back_before is not None
    assert verdict.passed_over is not None
    start, end = verdict.passed_over
    where = f"step {state.step}: spikes go on since step {verdict.back_before}"
    if len(state.passed_over) >= trainer.config.guards.max_rollbacks:
        raise TrainingError(
            f"{where}, and the run went back {len(state.passed_over)} time(s) already ({verdict.problem})",
            f"lower optimizer.lr, look at the samples from position {start} to {end - 1}, or raise "
            "guards.max_rollbacks",
        )
    trainer.recorder.beat(state.step, "saving")
    trainer.settle_save()
    if trainer.group.rank == 0:
        steps = layout.list_steps(trainer.run.path)
        # The oldest there is, where none is old enough; initial weights only where there is none.
        target = max((step for step in steps if step < verdict.back_before), default=min(steps, default=0))
        trainer.run.pass_over([*state.passed_over, verdict.passed_over])
        layout.abandon_after(trainer.run.path, target, trainer.recorder.attempt)
        trainer.recorder.event(
            "rolled_back",
            f"{where}; going back to step {target}, and passing over samples {start} to {end - 1}",
            step=target,
            passed_over=[start, end],
        )
    trainer.engine.barrier()
    raise RolledBack(where)
