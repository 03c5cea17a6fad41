"""The roles that do not learn: on every rank, or on workers beside them (`rl.scoring_workers`)."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from training.checkpoint.models import load_model
from training.config import Config
from training.engines import Group
from training.processes import meeting_place, own_device
from training.recorder import Recorder
from training.rl.elsewhere import Elsewhere, Line, answer, questions
from training.rl.judging import Judge
from training.rl.workers import Reference
from training.run_directory import RunDirectory


class Roles(NamedTuple):
    """Who scores answers; None is none. `line` leads to where that is done, if not here."""

    reference: Reference | None
    judge: Judge
    gold: Judge | None
    line: Line | None = None


def roles_of(config: Config, group: Group, verdicts: Path, still: Callable[[], None]) -> Roles:
    """For a rank: with all that they need, or with a line to the workers that have it."""
    if not config.rl.scoring_workers:
        return _roles(config, group, verdicts, None)
    assert group.store is not None
    ranks = range(config.engine.num_ranks, config.num_workers)
    return _roles(config, group, verdicts, Line(group.store, ranks, config.timeouts.collective_s, still))


def _roles(config: Config, group: Group, verdicts: Path, line: Line | None) -> Roles:
    """`verdicts` is a folder."""
    settings = config.rl
    there = partial(Elsewhere, line=line) if line else lambda role: None
    reference = None
    if settings.reference:
        model = None if line else load_model(Path(settings.reference)).decoder()
        reference = Reference(model, group, config, settings.temperature, there("reference"))
    gold = settings.model_copy(update={"rewards": settings.gold, "weights": ()})
    return Roles(
        reference,
        Judge(settings, group, verdicts, there("judge")),
        Judge(gold, group, verdicts, there("gold")) if gold.rewards else None,
        line,
    )


def serve(run: RunDirectory, rank: int, attempt: int, rendezvous: Path) -> None:
    """Be scoring worker `rank` of an attempt, until nobody asks any more."""
    config = run.config()
    recorder = Recorder(run, config, rank, attempt)
    recorder.beat(0, "starting")
    store = meeting_place(rank, config.engine.num_ranks, rendezvous)
    group = Group(rank - config.engine.num_ranks, 1, own_device(rank, config.engine.device))
    roles = _roles(config, group, run.path / "judge", None)
    for number, asked in questions(store, rank, lambda: recorder.beat(0, "waiting")):
        recorder.beat(0, "scoring")
        worker = getattr(roles, asked.role)
        # What is dealt out already is not to be dealt out once more.
        method = getattr(type(worker), asked.method).__wrapped__
        answer(store, rank, number, method(worker, asked.items))
    for judge in filter(None, (roles.judge, roles.gold)):
        judge.close()
