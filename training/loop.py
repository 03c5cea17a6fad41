"""The training loop, for every objective and every engine."""

from seedbed.errors import Preempted
from training.early_stopping import count, keeps_gold, out_of_patience, over_optimised
from training.garbage import Garbage
from training.profile import Profiler
from training.restore import restore
from training.trainer import Trainer
from training.validation import validate


def fit(trainer: Trainer) -> None:
    """Train from the newest sound checkpoint to the last step.

    The last step is `run.steps`, or an earlier one when `eval.patience` is exhausted or `rl.over_optimised`
    says so. Raises Preempted, with
    everything saved, when a rank was asked to stop; RolledBack when the run is to go on from an earlier step;
    TrainingError when too many losses or gradients are not finite.
    """
    config = trainer.config
    state = restore(trainer)
    profiler = Profiler(config.tracking.profile, trainer.recorder, trainer.group.device)
    last = state.step >= config.run.steps or out_of_patience(state, config.eval) or over_optimised(trainer)
    with Garbage(config.engine.collect_every) as garbage, profiler:
        while not last:
            profiler.before(state.step + 1)
            stopping = trainer.train_step(state)
            profiler.after(state.step)
            garbage.after(state.step)
            last = state.step == config.run.steps or over_optimised(trainer)
            pauses = state.step == config.run.pause_at
            due = config.eval.every_steps and (last or state.step % config.eval.every_steps == 0)
            is_lowest = False
            # What patience counts, and which step is the best, is not to depend on when a run was stopped.
            if due and (not stopping or config.eval.patience or config.eval.restore_best):
                validate(trainer, state)
                is_lowest = count(state, config.eval)
                last = last or out_of_patience(state, config.eval)
            keeps = (is_lowest and config.eval.restore_best) or keeps_gold(trainer, state)
            if stopping or pauses or last or keeps or trainer.interval.is_due(state.step):
                trainer.save(state)
            if (stopping or pauses) and not last:
                trainer.finish(state, "preempted")
                raise Preempted(f"stopped at step {state.step}, which is saved")
    trainer.finish(state, "finished")
