"""Where a run goes on from: the newest sound checkpoint, the same on all ranks, or its initial weights."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.order_hash import as_floats, from_floats
from seedbed.errors import CheckpointError, DamagedError
from training.checkpoint import layout, state_digest
from training.checkpoint.reader import Checkpoint
from training.engines.base import Engine, Shard
from training.guards import GuardState
from training.metrics import step_survives, surviving_rows
from training.run_directory import INIT_FROM
from training.state import TrainState

if TYPE_CHECKING:
    from training.trainer import Trainer

OPTIONAL = {"critic_ranks"}
"""What not every world has: its end is a change, too."""


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
        if trainer.rl:
            trainer.rl.initialize()
        engine.barrier()
    if aside_names := layout.set_aside(run.path):
        raise CheckpointError(
            f"{run.path} has no sound checkpoint left; put aside as damaged: {', '.join(aside_names)}",
            "restore one from a copy, or start over in another --run-dir",
        )
    _refuse_vanished(trainer)
    state = TrainState(passed_over=run.passed_over())
    state.position = state.after(0)
    message = "started from initial weights"
    source = run.record().get("init_from")
    if source:
        checkpoint = Checkpoint.open(initial_checkpoint(run.path))
        engine.load_state(checkpoint.read, optimizer=False, keep=source.get("fresh", ()))
        message = f"started with the weights of {source['checkpoint']}"
    if trainer.rl:
        trainer.rl.initialize()
    _begin(trainer, state, message)
    return state


def _refuse_vanished(trainer: "Trainer") -> None:
    """Raises CheckpointError when steps were saved and none is there: so looks a mount that is gone."""
    rows = surviving_rows(trainer.run.path) if trainer.group.rank == 0 else []
    saved = max((int(row["step"]) for row in rows if row["kind"] == "checkpoint"), default=0)
    if saved := int(trainer.engine.sum_over_ranks([float(saved)])[0]):
        raise CheckpointError(
            f"{layout.checkpoints_dir(trainer.run.path)} holds no checkpoint, and the run has saved step "
            f"{saved}",
            "mount its disk, or restore a copy; to start over, use another --run-dir",
        )


def initial_checkpoint(run_dir: Path) -> Path:
    """The checkpoint that a run with `--init-from` carries its first weights in."""
    return next((run_dir / INIT_FROM).iterdir())


def _newest_step(trainer: "Trainer") -> int | None:
    """The newest step with a manifest, as rank 0 sees it."""
    found = _surviving_steps(trainer.run.path) if trainer.group.rank == 0 else []
    step = int(trainer.engine.sum_over_ranks([float(found[-1] + 1) if found else 0.0])[0]) - 1
    return step if step >= 0 else None


def _surviving_steps(run_dir: Path) -> list[int]:
    """Steps of the chain; what an attempt wrote that had been given up by then is left to `abandon_after`."""
    steps = layout.list_steps(run_dir)
    while steps:
        attempt = layout.attempt_of(layout.step_dir(run_dir, steps[-1]))
        # What cannot say by whom it was written is damaged, or cannot be read: loading it will tell.
        if attempt is None or step_survives(run_dir, attempt, steps[-1]):
            break
        steps.pop()
    return steps


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
        # Before the first update there is no optimizer's state.
        trainer.engine.load_state(
            checkpoint.read, optimizer=checkpoint.manifest["trainer"].get("num_updates") != 0
        )

    def with_rl() -> None:
        assert checkpoint is not None
        if trainer.rl:
            trainer.rl.load_state(checkpoint)

    def with_critic() -> None:
        assert checkpoint is not None
        if trainer.rl and trainer.rl.critic:
            trainer.rl.critic.load_state(checkpoint)

    # Loading takes all ranks: one that cannot read its part must not leave the others to what comes next.
    for attempt in (opened, loaded, with_rl, with_critic):
        is_sound, problem = on_all_ranks(trainer.engine, attempt)
        if not is_sound:
            return None, problem
    assert checkpoint is not None
    check_state(trainer.engine, trainer.shards(checkpoint.position), checkpoint)
    return checkpoint, ""


def on_all_ranks(engine: Engine, attempt: Callable[[], None]) -> tuple[bool, str]:
    """(whether every rank could, what is damaged on this one)"""
    problem = ""
    try:
        attempt()
    except DamagedError as error:
        problem = error.message
    return not engine.sum_over_ranks([float(bool(problem))])[0], problem


def _sums(checkpoint: Checkpoint) -> dict[str, int]:
    """The digests of its tensors; none in a checkpoint that was made before there were any."""
    tensors = checkpoint.manifest["tensors"]
    return {name: int(entry["sum"], 16) for name, entry in tensors.items() if "sum" in entry}


def check_state(engine: Engine, shards: Iterable[Shard], checkpoint: Checkpoint) -> None:
    """Raises CheckpointError when what the engine's ranks hold now, put together, is not what was saved.

    Of tensors that every rank holds whole, rank 0's are compared; none of those that nobody of them holds.
    """
    stored, own = _sums(checkpoint), state_digest.digests(shards)
    names = sorted(stored)
    parts = [part for name in names for part in (float(name in own), *as_floats(own.get(name, 0)))]
    sums = engine.sum_over_ranks(parts)
    for number, name in enumerate(names):
        is_held, *value = sums[5 * number : 5 * number + 5]
        if is_held and from_floats(value) != stored[name]:
            raise CheckpointError(
                f"{checkpoint.path}: '{name}' was loaded as another tensor than the one that was saved",
                "its files are whole, so this is a mistake of Seedbed's: report it, and keep the checkpoint",
            )


def _resumed(trainer: "Trainer", checkpoint: Checkpoint) -> TrainState:
    kept = checkpoint.manifest["trainer"]
    # A roll-back is written down before any checkpoint could know of it.
    passed_over = {(start, end) for start, end in [*kept.get("passed_over", ()), *trainer.run.passed_over()]}
    state = TrainState(checkpoint.step, checkpoint.position)
    state.num_updates = kept.get("num_updates", checkpoint.step)
    state.passed_over = sorted(passed_over)
    state.position = state.after(state.position)
    # A branch begins without its parent's validations and troubles: its data and settings may be others.
    if trainer.run.record().get("forked_from", {}).get("step") != checkpoint.step:
        state.guards = GuardState.load(kept.get("guards", {}))
        state.least, state.num_stale = kept.get("patience", (None, 0))
        best = kept["best"]
        if best and layout.step_dir(trainer.run.path, best[1]).is_dir():
            trainer.recorder.best = (float(best[0]), int(best[1]))
            state.lowest = float(best[0])
    sums = _sums(checkpoint)
    proved = f" (state {state_digest.shown(sums)})" if sums else ""
    _begin(trainer, state, f"resumed from step {checkpoint.step}{proved}")
    before, now = checkpoint.manifest.get("world", {}), trainer.world()
    free = {"engine", "num_ranks", "critic_ranks"} if trainer.config.engine.exact else set()
    changed = [
        f"{key} {before.get(key)!r} -> {now.get(key)!r}"
        for key in {**now, **dict.fromkeys(OPTIONAL & before.keys())}
        if key not in free and before.get(key) != now.get(key)
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
    trainer.interval.resumed(state.step)
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
    if trainer.copy and state.step:
        # An end before this may have come before its copy.
        trainer.copy.push(state.step)
    trainer.engine.barrier()
