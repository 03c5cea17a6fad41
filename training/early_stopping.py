"""Ending a run when validation, or gold, says so, and going back to the step that it liked best.

Validations without improvement are counted in the run's state, which checkpoints carry: a run that was
resumed ends at the step at which it would have ended. So is what `rl.over_optimised` goes by.
"""

from typing import TYPE_CHECKING

from training.checkpoint import layout
from training.sections import EvalConfig
from training.state import TrainState

if TYPE_CHECKING:
    from training.trainer import Trainer


def count(state: TrainState, settings: EvalConfig) -> bool:
    """Count the validation of the current step; whether its loss is the least so far, by however little."""
    if state.validated is None:
        return False
    if state.least is None or state.validated < state.least - settings.min_delta:
        state.least, state.num_stale = state.validated, 0
    else:
        state.num_stale += 1
    is_lowest = state.lowest is None or state.validated < state.lowest
    if is_lowest:
        state.lowest = state.validated
    return is_lowest


def out_of_patience(state: TrainState, settings: EvalConfig) -> bool:
    """Whether there were `eval.patience` validations in a row without improvement."""
    return 0 < settings.patience <= state.num_stale


def over_optimised(trainer: "Trainer") -> bool:
    """Whether the run ends since its reward is."""
    return trainer.rl is not None and trainer.rl.record.ends


def keeps_gold(trainer: "Trainer", state: TrainState) -> bool:
    """Whether the current step has the best gold so far, and the run may want to go back to it."""
    return trainer.rl is not None and trainer.rl.record.keeps(state.step)


def end(trainer: "Trainer", state: TrainState) -> int:
    """Say why the run ends before its last step, if it does; returns the step that it leaves as its newest.

    To be called when all saves are settled. With `eval.restore_best` the steps after the best are abandoned.
    """
    settings, recorder = trainer.config.eval, trainer.recorder
    if over_optimised(trainer):
        return _end_over_optimised(trainer, state)
    if state.step < trainer.config.run.steps and out_of_patience(state, settings):
        message = (
            f"stopped early at step {state.step} of {trainer.config.run.steps}: no validation loss under "
            f"{state.least:.4f} in {state.num_stale} validations (eval.patience)"
        )
        recorder.event("stopped_early", message, step=state.step)
    if not settings.restore_best or recorder.best is None:
        return state.step
    loss, step = recorder.best
    if layout.abandon_after(trainer.run.path, step, recorder.attempt):
        message = f"went back to step {step}, of the least validation loss, {loss:.4f} (eval.restore_best)"
        recorder.event("best_restored", message, step=step)
    return step


def _end_over_optimised(trainer: "Trainer", state: TrainState) -> int:
    assert trainer.rl is not None
    settings, recorder = trainer.config.rl, trainer.recorder
    if state.step < trainer.config.run.steps:
        message = (
            f"stopped early at step {state.step} of {trainer.config.run.steps}: the reward is over-optimised "
            f'(rl.over_optimised = "{settings.over_optimised}")'
        )
        recorder.event("stopped_early", message, step=state.step)
    if settings.over_optimised != "best":
        return state.step
    best = trainer.rl.record.watch.best_steps[-1]
    # That very one is missing where a save of it failed, or the setting came later.
    step = max((step for step in layout.list_steps(trainer.run.path) if step <= best), default=state.step)
    if layout.abandon_after(trainer.run.path, step, recorder.attempt):
        message = f'went back to step {step}; gold was best at step {best} (rl.over_optimised = "best")'
        recorder.event("best_restored", message, step=step)
    return step
