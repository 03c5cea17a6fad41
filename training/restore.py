"""Where a run goes on from: the newest sound checkpoint, the same on all ranks, or its initial weights."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.order_hash import as_floats, from_floats
from seedbed.errors import CheckpointError, DamagedError
from training.checkpoint import layout, state_digest
from training.checkpoint.reader import Checkpoint
from training.guards import GuardState
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
    state = TrainState(passed_over=run.passed_over())
    state.position = state.after(0)
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
    def proved() -> None:
        assert checkpoint is not None
        _check_state(trainer, checkpoint)

    for attempt in (opened, loaded, proved):
        problem = ""
        try:
            attempt()
        except DamagedError as error:
            problem = error.message
        if trainer.engine.sum_over_ranks([1.0 if problem else 0.0])[0]:
            return None, problem
    return checkpoint, ""


def _check_state(trainer: "Trainer", checkpoint: Checkpoint) -> None:
    """Raises DamagedError when what the ranks hold now, put together, is not what was saved."""
    stored = checkpoint.manifest.get("state", {})
    own = state_digest.digests(trainer.engine.state())
    for kind in sorted(stored):
        held = trainer.engine.sum_over_ranks([float(kind in own)])[0]
        found = from_floats(trainer.engine.sum_over_ranks(as_floats(own.get(kind, 0))))
        if held and f"{found:016x}" != stored[kind]:
            raise DamagedError(
                f"{checkpoint.path}: '{kind}' was loaded as another state than the one that was saved",
                "use another step, and report this: the files themselves are whole",
            )


def _resumed(trainer: "Trainer", checkpoint: Checkpoint) -> TrainState:
    kept = checkpoint.manifest["trainer"]
    # A roll-back is written down before any checkpoint could know of it.
    passed_over = {(start, end) for start, end in [*kept.get("passed_over", ()), *trainer.run.passed_over()]}
    state = TrainState(checkpoint.step, checkpoint.position, guards=GuardState.load(kept.get("guards", {})))
    state.passed_over = sorted(passed_over)
    state.position = state.after(state.position)
    # A branch begins without its parent's validations: its data and its settings may be others.
    if trainer.run.record().get("forked_from", {}).get("step") != checkpoint.step:
        state.least, state.num_stale = kept.get("patience", (None, 0))
        best = kept["best"]
        if best and layout.step_dir(trainer.run.path, best[1]).is_dir():
            trainer.recorder.best = (float(best[0]), int(best[1]))
            state.lowest = float(best[0])
    saved = checkpoint.manifest.get("state", {})
    shown = state_digest.shown({kind: int(value, 16) for kind, value in saved.items()})
    _begin(trainer, state, f"resumed from step {checkpoint.step} (state {shown})")
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
