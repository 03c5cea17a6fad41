"""The critic: its weights, its optimizer, its steps beside the policy's.

On the policy's ranks, under the same engine; or on workers of its own (`rl.critic_workers`), which rank 0
asks, which learn of a step while the policy does, and which write their own parts of each checkpoint.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from models.config import ModelConfig
from models.families import build, initial_values, parameter_shapes
from models.sizes import LORA_A, LORA_B
from seedbed.errors import DamagedError
from training.batch_layout import batch_layout
from training.checkpoint.models import model_config_of
from training.checkpoint.reader import Checkpoint
from training.checkpoint.writer import Saver
from training.config import Config
from training.datasets import micro_batches
from training.engines import ENGINES, Engine, Group
from training.engines.base import Shard
from training.objectives import as_numbers, seed_dropout
from training.restore import check_state, initial_checkpoint, on_all_ranks
from training.rl.buffer import Learned, RolloutStream, tensors
from training.rl.elsewhere import Elsewhere, Question
from training.rl.objectives import ValueObjective, token_values
from training.rl.rollouts import Rollout, tensors_of
from training.rl.workers import Worker, rows, shared_out, together
from training.run_directory import RunDirectory
from training.schedules import learning_rate
from training.tasks import each_tensor

PREFIX = "critic/"


class Critic(Worker):
    """What an answer is expected to be worth, after each token; it learns from the policy's answers."""

    is_collective = True

    def __init__(
        self, run: RunDirectory, config: Config, group: Group, elsewhere: Elsewhere | None = None
    ) -> None:
        """`config` is the run's; `group` has those that hold the critic, or that ask for it."""
        super().__init__(group, config.batch.micro_batch_size, elsewhere)
        self.num_parts = len(elsewhere.ranks) if elsewhere else 0
        self._begun = (0, 0)
        self._asked: list[Question] = []
        if elsewhere:
            return
        self.run, self.config = run, critic_config(config)
        self._own_part = config.critic_ranks.start + group.rank
        self.layout = batch_layout(self.config)
        self.engine: Engine = ENGINES[self.config.engine.name].prepare(
            lambda: build(self.config.model),
            lambda name, start, stop: initial_values(
                name, start, stop, self.config.model, self.config.run.seed
            ),
            self.config,
            group,
        )
        self.objective = ValueObjective(self.config.rl.value_clip or None)
        self.stream = RolloutStream(self.config.rl, 0, self.config.model.context, self.config.run.seed)
        self._saver: Saver | None = None

    @shared_out
    def values(self, rollouts: Sequence[Rollout]) -> list[Tensor]:
        """Of what was read before each of the answer's tokens."""
        batch = tensors_of(rollouts, 0)
        tokens = batch.tokens.to(self.group.device)
        found = self.engine.infer(lambda model: token_values(model, tokens))
        return rows(found.float().cpu(), batch.mask)

    @together
    def learn_from(self, iteration: int, learned: Learned) -> None:
        """Have the answers of the steps that come."""
        self.stream.iteration, self.stream.learned = iteration, learned

    def begin(self, step: int, position: int) -> None:
        """Step `step`, over the data from `position`, may begin: it does, where the critic is elsewhere."""
        self._begun = (step, position)
        if self.elsewhere and self.group.rank == 0:
            self._asked = self.elsewhere.begin("learn", self._begun)

    def learned(self) -> dict[str, float]:
        """What came of the step that was begun: see `learn`."""
        if (elsewhere := self.elsewhere) is None:
            return self.learn(*self._begun)
        return self.of_rank_0(lambda: elsewhere.answered(self._asked))

    @together
    def learn(self, step: int, position: int) -> dict[str, float]:
        """One step; `value_loss` and `value_grad_norm`, or nothing where there was nothing to learn.

        With a norm that is not finite the weights stay what they were.
        """
        layout, rank = self.layout, self.group.rank
        losses: list[Tensor | None] = [None] * layout.num_micro_batches
        weights = losses.copy()
        for turn, batch in enumerate(micro_batches(self.stream, layout, rank, position)[0]):
            index = layout.micro_batch(rank, turn)
            seed_dropout(self.config.run.seed, position, index)
            values = each_tensor(tensors(batch).for_critic(), lambda value: value.to(self.group.device))
            loss, weight = self.engine.micro_batch(self.objective, values, last=turn == layout.turns - 1)
            if index is not None:
                losses[index], weights[index] = loss, weight
        num = layout.num_micro_batches
        sums = self.engine.sum_over_ranks([*as_numbers(losses), *as_numbers(weights)])
        total, weight_sum = sum(sums[:num]), sum(sums[num:])
        if not weight_sum:
            self.engine.skip()
            return {}
        norm = self.engine.step(learning_rate(step, self.config), weight_sum)
        return {"value_loss": total / weight_sum, "value_grad_norm": norm}

    def state(self) -> Iterator[Shard]:
        """What this process holds of it."""
        if self.elsewhere is None:
            for shard in self.engine.state():
                yield shard._replace(name=PREFIX + shard.name)

    def load_state(self, checkpoint: Checkpoint) -> None:
        """DamagedError when it cannot be read."""
        if self.elsewhere is None:
            self._load(checkpoint)
        elif problem := self.load(str(checkpoint.path)):
            raise DamagedError(problem, "use another step")

    @together
    def load(self, path: str) -> str:
        """Its state of the checkpoint at `path`, once more checked; returns what is damaged there."""
        checkpoint = Checkpoint.open(Path(path))
        is_sound, problem = on_all_ranks(self.engine, lambda: self._load(checkpoint))
        if is_sound:
            check_state(self.engine, self.state(), checkpoint)
            return ""
        return problem or "another of the critic's workers cannot read its part"

    def _load(self, checkpoint: Checkpoint) -> None:
        def read(name: str, *place: Any) -> Tensor:
            return checkpoint.read(PREFIX + name, *place)

        self.engine.load_state(read, optimizer=bool(checkpoint.names(f"{PREFIX}optimizer/")))
        self.stream.load_state(checkpoint)

    @together
    def initialize(self) -> None:
        """As the reward model that is named, or else as the policy begins, with a new head."""
        self.stream.learned = None
        self.engine.initialize()
        path = Path(self.config.rl.critic) if self.config.rl.critic else None
        if path is None and self.run.record().get("init_from"):
            path = initial_checkpoint(self.run.path)
        if path is not None:
            checkpoint = Checkpoint.open(path)
            stored = set(checkpoint.names("model/"))
            keep = [
                name
                for name in parameter_shapes(self.config.model)
                if f"model/{name}" not in stored
                and (name.startswith("reward.") or name.endswith((LORA_A, LORA_B)))
            ]
            self.engine.load_state(checkpoint.read, optimizer=False, keep=keep)

    @together
    def save(self, step: int, nonce: str) -> None:
        """Begin to write its parts of a checkpoint, which rank 0 puts together: see `Saver`."""
        if self._saver is None:
            self._saver = Saver(self.run.path, self._own_part, 0, nonce, {}, lambda _: None)
        self._saver.save(self.state(), {"step": step})

    @together
    def save_failure(self) -> str | None:
        """None while its parts are being written; then why that failed, or ""."""
        assert self._saver is not None
        is_busy, own = self._saver.is_busy, self._saver.own_failure
        any_busy, any_failed = self.engine.sum_over_ranks([float(is_busy), float(bool(own))])
        if any_busy:
            return None
        return own or ("another of the critic's workers could not write its part" if any_failed else "")


def critic_config(config: Config) -> Config:
    """The configuration of a run's critic: its model, its rate, and its own ranks if it has them."""
    model = model_config_of(Path(config.rl.critic)) if config.rl.critic else config.model
    assert isinstance(model, ModelConfig)
    adapters = {name: getattr(config.model, name) for name in ModelConfig.model_fields if "lora_" in name}
    optimizer = config.optimizer.model_copy(update={"lr": config.rl.critic_lr or config.optimizer.lr})
    own = {"num_ranks": config.rl.critic_workers, "replicas": 1} if config.rl.critic_workers else {}
    return config.model_copy(
        update={
            "model": model.model_copy(update={**adapters, "head": "reward"}),
            "optimizer": optimizer,
            "engine": config.engine.model_copy(update=own),
        }
    )
