"""The algorithm: rollout -> score -> advantage, and then updates, which are the trainer's own steps.

    refresh      the generator gets the policy's weights
    rollout      it answers prompts
    score        rewards judge the answers, the reference says how far they are from it
    advantage    how much better than expected each token was
    update       steps of the policy, and of the critic beside it, over these answers

What is drawn and in which order is a function of seed and data position, what is computed of blocks of a
fixed size: a run is the same on any number of ranks, and goes on from a checkpoint in the middle of an
iteration.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from seedbed.errors import TrainingError
from training.checkpoint.reader import Checkpoint
from training.engines.base import Shard
from training.rl.asking import Asking
from training.rl.buffer import Learned, RolloutStream, padded
from training.rl.credit import Credit, credited
from training.rl.critic import Critic
from training.rl.invariants import (
    Bands,
    Broken,
    check_finite,
    check_first_ratio,
    check_generator,
    check_reference,
)
from training.rl.kl import ESTIMATORS, KlController
from training.rl.losses import importance
from training.rl.objectives import RolloutObjective, token_log_probs
from training.rl.pretraining import answers_of
from training.rl.record import IterationRecord
from training.rl.roles import roles_of
from training.rl.rollouts import Rollout, RolloutTensors, keep_newest, tensors_of
from training.rl.scores import RewardMoments
from training.rl.settings import ALGORITHMS
from training.rl.weights import Clock, same_on_all_ranks
from training.rl.workers import Policy
from training.state import TrainState
from training.tasks.rollouts import RolloutTask

if TYPE_CHECKING:
    from training.trainer import Trainer

STATE = "rl/state"
WATCH = "watch/iterations"
"""Not among what a hash of the state is taken of: gold is measured, and may be left out."""
MOST_IN_VAIN = 10
"""Iterations without anything to learn, one after another, that end a run."""


class Reinforcement:
    """Before and after a trainer's steps."""

    def __init__(self, trainer: "Trainer") -> None:
        self.trainer, self.config = trainer, trainer.config
        assert isinstance(trainer.task, RolloutTask)
        assert isinstance(trainer.objective, RolloutObjective)
        assert isinstance(trainer.train_data, RolloutStream)
        self.objective, self.stream = trainer.objective, trainer.train_data
        self.settings, self.algorithm = self.config.rl, ALGORITHMS[self.config.objective.name]
        self.policy = Policy(trainer.engine, self.config, self.settings.temperature)
        roles = roles_of(trainer.run, self.config, trainer.group, trainer.recorder.still)
        self.critic, self.reference, self.judge, self.gold, self._lines = roles
        self.asking = Asking(self.config, trainer.task, self.policy, self.judge, trainer.recorder)
        self.record = IterationRecord(self.settings, trainer.recorder, self.gold)
        self.kl = KlController(self.settings.kl, self.settings.kl_target or None, self.settings.kl_horizon)
        self.moments = RewardMoments()
        self.bands = replace(Bands.of(self.config.engine.precision), kl=self.settings.max_kl or math.inf)
        self._is_first, self._iteration = True, 0

    def before(self, state: TrainState) -> None:
        """Have answers to learn from at the data position of `state`, which may move to where there are."""
        for _ in range(MOST_IN_VAIN):
            self._align(state)
            if self.stream.holds(state.position) or self._iterate(state):
                if self.critic:
                    self.critic.begin(state.step + 1, state.position)
                return
            self.trainer.recorder.event(
                "iteration_in_vain",
                f"step {state.step + 1}: no answer teaches anything: all were left out",
                step=state.step + 1,
            )
            state.position = state.after(state.position + self.stream.per_iteration)
        raise TrainingError(
            f"step {state.step + 1}: of {MOST_IN_VAIN} iterations in a row no answer teaches anything",
            "are prompts too hard or too easy? Raise rl.answers, or look at the rewards in the rollouts",
        )

    def _align(self, state: TrainState) -> None:
        """To where an iteration begins, if a stretch was passed over that ends within one."""
        position = state.after(state.position)
        while not (self.stream.holds(position) or self.stream.begins(position)):
            position = state.after(position + -position % self.stream.per_iteration)
        state.position = position

    def _iterate(self, state: TrainState) -> bool:
        """One iteration, up to its updates; whether there is something to learn."""
        clock, recorder = Clock(), self.trainer.recorder
        self._iteration = self.stream.place(state.position).iteration
        clock.begin("rollout")
        recorder.beat(state.step, "generating")
        self.asking.ahead.settle()
        clock.begin("refresh")
        recorder.beat(state.step, "refreshing")
        num_bytes = self.policy.refresh()
        if not same_on_all_ranks(self.trainer.engine, self.policy.hash):
            raise Broken("weights", "ranks generate with different weights", "report it")
        clock.begin("rollout")
        recorder.beat(state.step, "generating")
        kept, left_out = self.asking.rollouts(self._iteration, clock, state.step)
        if not kept:
            self._keep(left_out, state)
            return False
        rollouts = (kept + left_out)[: self.settings.per_iteration]
        clock.begin("score")
        recorder.beat(state.step, "scoring")
        batch = tensors_of(rollouts, 0)
        mask_NT = batch.mask & (torch.arange(len(rollouts)) < len(kept))[:, None]
        old_NT = padded(self.policy.log_probs(rollouts), batch.mask)
        fresh_N = torch.tensor([one.policy == self.policy.hash for one in rollouts])
        apart = check_generator(batch, old_NT, self.bands, fresh_N)
        reference_NT = padded(self.reference.log_probs(rollouts), batch.mask) if self.reference else old_NT
        values_NT = padded(self.critic.values(rollouts), batch.mask) if self.critic else torch.zeros(())
        clock.begin("advantage")
        credit = self._credit(kept, old_NT, reference_NT, values_NT, mask_NT)
        self._learn_from(batch, mask_NT, old_NT, reference_NT, values_NT, credit)
        clock.begin("")
        self._keep(rollouts, state)
        self.record.add(
            state.step + 1,
            kept,
            left_out,
            partial(self.asking.with_examples, self._iteration),
            clock,
            iteration=self._iteration,
            kl=credit.kl_of_answer,
            kl_coefficient=self.kl.coefficient,
            generator_apart=apart,
            refreshed_bytes=num_bytes,
        )
        if self._is_first:
            self._check_first(state)
        self._is_first = False
        return True

    def _credit(
        self, kept: list[Rollout], old_NT: Tensor, reference_NT: Tensor, values_NT: Tensor, mask_NT: Tensor
    ) -> Credit:
        estimator = self.settings.kl_estimator
        kl_NT = ESTIMATORS["k1" if estimator == "auto" else estimator](old_NT - reference_NT)
        num = len(kept)
        check_reference(
            kl_NT[:num], mask_NT[:num], self.bands, is_first=self._is_first, is_initial=self.is_initial
        )
        scores = self.moments.scores(kept, self.settings)
        credit = credited(
            self.settings,
            self.algorithm,
            numbers=[one.number for one in kept],
            scores=scores,
            kl_NT=torch.where(mask_NT, kl_NT, 0.0),
            values_NT=values_NT,
            mask_NT=mask_NT,
            coefficient=self.kl.coefficient,
        )
        self.kl.update(credit.kl_of_answer, num)
        self.objective.set_kl(self.kl.coefficient if self.algorithm.kl_in == "loss" else 0.0)
        return credit

    @property
    def is_initial(self) -> bool:
        """Whether the policy begins as the reference."""
        source = self.trainer.run.record().get("init_from", {}).get("checkpoint")
        # A base in four bits is another from the start.
        is_whole = getattr(self.config.model, "lora_base", "full") == "full"
        return bool(source) and is_whole and Path(source).resolve() == Path(self.settings.reference).resolve()

    def _learn_from(
        self,
        batch: RolloutTensors,
        mask_NT: Tensor,
        old_NT: Tensor,
        reference_NT: Tensor,
        values_NT: Tensor,
        credit: Credit,
    ) -> None:
        for name, values in (("advantages", credit.advantages_NT), ("returns", credit.returns_NT)):
            check_finite(name, values, mask_NT)
        limit = self.settings.importance
        ones_NT = torch.ones_like(old_NT)
        self.stream.iteration = self._iteration
        self.stream.learned = Learned(
            tokens=batch.tokens,
            weights=mask_NT.float(),
            old=old_NT,
            reference=reference_NT,
            advantages=credit.advantages_NT,
            values=values_NT if values_NT.ndim else torch.zeros_like(old_NT),
            returns=credit.returns_NT,
            importance=importance(old_NT, batch.log_probs, limit) if limit else ones_NT,
        )
        if self.critic:
            self.critic.learn_from(self._iteration, self.stream.learned)

    def _check_first(self, state: TrainState) -> None:
        """The trainer's forward of a micro-batch gives the log-probabilities that are taken as the old."""
        size = self.trainer.layout.micro_batch_size
        batch = answers_of(self.trainer.prepared(self.stream.batch(state.position, size)))
        mask_BT = batch.weights > 0

        def computed(model: torch.nn.Module) -> Tensor:
            return token_log_probs(model, batch.tokens, mask_BT, self.settings.temperature)[0]

        new_BT = self.trainer.engine.infer(computed).float()
        if mask_BT.any():
            check_first_ratio(new_BT, batch.old, mask_BT, self.bands)

    def _keep(self, rollouts: list[Rollout], state: TrainState) -> None:
        if self.trainer.group.rank == 0 and self.settings.keep_rollouts:
            keep_newest(self.trainer.run.path, state.step, rollouts, self.settings.keep_rollouts)

    def only_critic(self, state: TrainState) -> bool:
        """Whether the policy waits for the critic to know something."""
        warmup = self.settings.critic_warmup if self.critic else 0
        return self.stream.place(state.position).iteration < warmup

    def after(self, state: TrainState) -> dict[str, Any]:
        """Once the policy has learned: what is recorded of it and of the critic; `state` may move on."""
        seen = self.objective.take_seen(self.trainer.layout.turns)
        names = list(seen)
        sums = self.trainer.engine.sum_over_ranks([number for name in names for number in seen[name]])
        measured = {
            name: sums[2 * place] / sums[2 * place + 1]
            for place, name in enumerate(names)
            if sums[2 * place + 1] and name != "loss"
        }
        if self.critic:
            measured |= self._learned_by_critic(state)
        moved = measured.get("approximate_kl", 0.0)
        if self.settings.stop_kl and moved > self.settings.stop_kl and not self.stream.begins(state.position):
            state.position += -state.position % self.stream.per_iteration
            measured["stopped_by_kl"] = True
        if self.stream.begins(state.position):
            self.stream.learned = None
        return measured

    def _learned_by_critic(self, state: TrainState) -> dict[str, Any]:
        assert self.critic is not None
        learned = self.critic.learned()
        if math.isfinite(learned.get("value_grad_norm", 0.0)):
            return learned
        message = f"step {state.step}: the critic's gradient is not finite; it did not learn"
        self.trainer.recorder.event("critic_skipped", message, step=state.step)
        return {}

    @property
    def apart(self) -> Critic | None:
        """Who writes parts of a checkpoint beside the ranks."""
        return self.critic if self.critic and self.critic.num_parts else None

    def state(self, position: int) -> Iterator[Shard]:
        """What a checkpoint has beside the policy."""
        self.asking.ahead.settle()
        if self.critic:
            yield from self.critic.state()
        if self.trainer.group.rank == 0:
            values = torch.tensor([self.kl.coefficient, *self.moments.state()], dtype=torch.float64)
            yield Shard(STATE, values, tuple(values.shape), (0,))
            if len(seen := torch.from_numpy(self.record.watch.state())):
                yield Shard(WATCH, seen, tuple(seen.shape), (0, 0))
            yield from self.stream.state(position)
            yield from self.asking.ahead.state()

    def load_state(self, checkpoint: Checkpoint) -> None:
        """All of it but the critic's."""
        coefficient, *moments = checkpoint.read(STATE).tolist()
        self.kl.load_state({"coefficient": coefficient})
        self.moments.load_state(moments)
        # A branch may be given other rewards.
        is_branch = self.trainer.run.record().get("forked_from", {}).get("step") == checkpoint.step
        has_watch = checkpoint.names(WATCH) and not is_branch
        self.record.load_state(checkpoint.read(WATCH).numpy() if has_watch else None)
        self._is_first = False
        self.objective.set_kl(coefficient if self.algorithm.kl_in == "loss" else 0.0)
        self.stream.load_state(checkpoint)
        self.asking.ahead.load_state(checkpoint)

    def initialize(self) -> None:
        """As a run begins that has no checkpoint."""
        self.stream.learned = None
        self.asking.ahead.forget()
        self.record.load_state(None)
        if self.critic:
            self.critic.initialize()

    def close(self) -> None:
        self.asking.ahead.close()
        for judge in filter(None, (self.judge, self.gold)):
            judge.close()
        if self.trainer.group.rank == 0:
            for line in self._lines:
                line.close()
