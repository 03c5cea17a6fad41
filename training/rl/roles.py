"""The roles beside the policy: on every rank, or on workers of their own (`rl.critic_workers`,
`rl.scoring_workers`)."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch.distributed as dist

from training.checkpoint.models import load_model
from training.config import Config
from training.engines import Group
from training.processes import meeting_place, own_device, process_group
from training.recorder import Recorder
from training.rl.critic import Critic
from training.rl.elsewhere import Elsewhere, Line, answer, questions
from training.rl.judging import Judge
from training.rl.settings import ALGORITHMS
from training.rl.workers import Reference, Worker
from training.run_directory import RunDirectory


class Roles(NamedTuple):
    """Who values and scores answers; None is none. `lines` lead to those who do it elsewhere."""

    critic: Critic | None
    reference: Reference | None
    judge: Judge
    gold: Judge | None
    lines: list[Line]


def roles_of(run: RunDirectory, config: Config, group: Group, still: Callable[[], None]) -> Roles:
    """For a rank: with all that they need, or with lines to the workers that have it."""

    def line_to(ranks: range) -> Line | None:
        if not ranks:
            return None
        assert group.store is not None
        return Line(group.store, ranks, config.timeouts.collective_s, still)

    to_critic, to_scoring = line_to(config.critic_ranks), line_to(config.scoring_ranks)
    critic = None
    if ALGORITHMS[config.objective.name].has_critic:
        critic = Critic(run, config, group, Elsewhere("critic", to_critic) if to_critic else None)
    scoring = _scoring(run.path / "judge", config, group, to_scoring)
    return Roles(critic, *scoring, [line for line in (to_critic, to_scoring) if line])


def _scoring(
    verdicts: Path, config: Config, group: Group, line: Line | None = None
) -> tuple[Reference | None, Judge, Judge | None]:
    """(the reference, who rewards, who measures gold); `verdicts` is a folder."""
    settings = config.rl

    def there(role: str) -> Elsewhere | None:
        return Elsewhere(role, line) if line else None

    reference = None
    if settings.reference:
        model = None if line else load_model(Path(settings.reference)).decoder()
        reference = Reference(model, group, config, settings.temperature, there("reference"))
    gold = settings.model_copy(update={"rewards": settings.gold, "weights": ()})
    return (
        reference,
        Judge(settings, group, verdicts, there("judge")),
        Judge(gold, group, verdicts, there("gold")) if gold.rewards else None,
    )


def serve(run: RunDirectory, rank: int, attempt: int, rendezvous: Path) -> None:
    """Be worker `rank` of an attempt, beside its ranks, until nobody asks any more."""
    config = run.config()
    recorder = Recorder(run, config, rank, attempt)
    recorder.beat(0, "starting")
    device, ranks = config.engine.device, config.critic_ranks
    if rank in ranks:
        timeout_s = config.timeouts.collective_s
        with process_group(
            rank - ranks.start, len(ranks), device, rendezvous, timeout_s, ranks.start
        ) as group:
            _answer_all(group.store, rank, {"critic": Critic(run, config, group)}, recorder)
        return
    store = meeting_place(rank, config.engine.num_ranks, rendezvous)
    group = Group(rank - config.scoring_ranks.start, 1, own_device(rank, device))
    reference, judge, gold = _scoring(run.path / "judge", config, group)
    _answer_all(store, rank, {"reference": reference, "judge": judge, "gold": gold}, recorder)
    for one in filter(None, (judge, gold)):
        one.close()


def _answer_all(store: dist.Store, rank: int, roles: Mapping[str, Worker | None], recorder: Recorder) -> None:
    for number, asked in questions(store, rank, lambda: recorder.beat(0, "waiting")):
        recorder.beat(0, "scoring" if asked.method != "learn" else "learning")
        worker = roles[asked.role]
        assert worker is not None
        method = getattr(type(worker), asked.method)
        if worker.is_collective:
            found = [method(worker, *asked.items)]
            answer(store, rank, number, () if worker.group.rank else found)
        else:
            # What is dealt out already is not to be dealt out once more.
            answer(store, rank, number, method.__wrapped__(worker, asked.items))
