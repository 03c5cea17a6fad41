"""Where a run goes on from: the newest sound checkpoint, the same on all ranks, or its initial weights."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from seedbed.errors import CheckpointError, DamagedError
from training.checkpoint import layout
from training.checkpoint.reader import Checkpoint
from training.run_directory import INIT_FROM
from training.state import TrainState

if TYPE_CHECKING:
    from training.trainer import Trainer


def restore(trainer: "Trainer") -> TrainState:
    """Load the newest sound checkpoint and open a new attempt; damaged ones are put aside.

    Only damage is: a checkpoint of a newer format or of another model stops the run, since nothing is
    wrong with it. Raises CheckpointError when there were checkpoints and none is sound: to start over
    from initial weights is for the user to say.
    """
    run, group, engine = trainer.run, trainer.group, trainer.engine
    while (step := _newest_step(trainer)) is not None:
        path = layout.step_dir(run.path, step)
        checkpoint, problem = _try_load(trainer, path)
        if checkpoint is not None:
            return _resumed(trainer, checkpoint)
        if problem:
            where = {} if group.num_ranks == 1 else {"rank": group.rank}
            run.event("checkpoint_damaged", f"step {step}: {problem}", step=step, **where)
        engine.barrier()
        if group.rank == 0:
            aside = layout.quarantine(path)
            message = (
                f"step {step} is damaged and was put aside: {problem or 'another rank cannot read its part'}"
            )
            trainer.recorder.event("checkpoint_quarantined", message, step=step, moved_to=aside.name)
        engine.initialize()
        engine.barrier()
    if aside_names := layout.set_aside(run.path):
        raise CheckpointError(
            f"{run.path} has no sound checkpoint left; put aside as damaged: {', '.join(aside_names)}",
            "restore one from a copy; or, to start over, delete these folders",
        )
    state = TrainState()
    message = "started from initial weights"
    source = run.record().get("init_from")
    if source:
        checkpoint = Checkpoint.open(initial_checkpoint(run.path))
        engine.load_state(checkpoint.read, optimizer=False, keep=source.get("fresh", ()))
        message = f"started with the weights of {source['checkpoint']}"
    _begin(trainer, state, message)
    return state


def initial_checkpoint(run_dir: Path) -> Path:
    """The checkpoint that a run with `--init-from` carries its first weights in."""
    return next((run_dir / INIT_FROM).iterdir())


def _newest_step(trainer: "Trainer") -> int | None:
    """The newest step with a manifest, as rank 0 sees it."""
    found = layout.list_steps(trainer.run.path) if trainer.group.rank == 0 else []
    step = int(trainer.engine.sum_over_ranks([float(found[-1] + 1) if found else 0.0])[0]) - 1
    return step if step >= 0 else None


def _try_load(trainer: "Trainer", path: Path) -> tuple[Checkpoint | None, str]:
    """(the checkpoint, "") when every rank could load it, else (None, what is damaged on this rank)."""
    checkpoint: Checkpoint | None = None

    def opened() -> None:
        nonlocal checkpoint
        checkpoint = Checkpoint.open(path)
        for name in trainer.saver.attachments:
            checkpoint.read_file(name)

    def loaded() -> None:
        assert checkpoint is not None
        trainer.engine.load_state(checkpoint.read)

    # Loading takes all ranks: one that cannot even open the step must not leave the others to it.
    for attempt in (opened, loaded):
        problem = ""
        try:
            attempt()
        except DamagedError as error:
            problem = error.message
        if trainer.engine.sum_over_ranks([1.0 if problem else 0.0])[0]:
            return None, problem
    return checkpoint, ""


def _resumed(trainer: "Trainer", checkpoint: Checkpoint) -> TrainState:
    state = TrainState(checkpoint.step, checkpoint.position)
    # A branch begins without its parent's validations: its data and its settings may be others.
    if trainer.run.record().get("forked_from", {}).get("step") != checkpoint.step:
        kept = checkpoint.manifest["trainer"]
        state.least, state.num_stale = kept.get("patience", (None, 0))
        best = kept["best"]
        if best and layout.step_dir(trainer.run.path, best[1]).is_dir():
            trainer.recorder.best = (float(best[0]), int(best[1]))
            state.lowest = float(best[0])
    _begin(trainer, state, f"resumed from step {checkpoint.step}")
    before, now = checkpoint.manifest.get("world", {}), trainer.world()
    free = {"engine", "num_ranks"} if trainer.config.engine.exact else set()
    changed = [
        f"{key} {before.get(key)!r} -> {now[key]!r}"
        for key in now
        if key not in free and before.get(key) != now[key]
    ]
    if changed:
        trainer.recorder.event(
            "world_changed",
            "from here on this is not bit for bit the run that an unchanged machine would give: "
            + ", ".join(changed),
            step=checkpoint.step,
        )
    return state


def _begin(trainer: "Trainer", state: TrainState, message: str) -> None:
    if trainer.group.rank == 0:
        layout.remove_leftovers(trainer.run.path)
        for path in layout.unfinished_steps(trainer.run.path):
            aside = layout.quarantine(path)
            text = f"{path.name} has no manifest and was put aside"
            trainer.recorder.event("checkpoint_quarantined", text, moved_to=aside.name)
        layout.abandon_after(trainer.run.path, state.step, trainer.recorder.attempt)
    details: dict[str, Any] = {
        "num_ranks": trainer.group.num_ranks,
        "peak_flops": trainer.peak_flops,
        "peak_source": trainer.peak_source,
        "matmul_flops": trainer.matmul_flops,
        "baseline_bytes": trainer.baseline_bytes,
    }
    trainer.recorder.begin(state.step, message, **details)
    trainer.engine.barrier()
