"""The critic's own engine: its weights, its optimizer, its steps beside the policy's."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from models.config import ModelConfig
from models.families import build, initial_values, parameter_shapes
from models.sizes import LORA_A, LORA_B
from training.checkpoint.models import model_config_of
from training.checkpoint.reader import Checkpoint
from training.config import Config
from training.engines import ENGINES, Engine
from training.engines.base import Shard
from training.objectives import as_numbers
from training.restore import initial_checkpoint
from training.rl.buffer import Learned
from training.rl.objectives import ValueObjective
from training.rl.rollouts import Rollout
from training.rl.workers import Critic
from training.schedules import learning_rate

if TYPE_CHECKING:
    from training.trainer import Trainer

PREFIX = "critic/"


class CriticTrainer:
    """Beside a policy's trainer, on the same ranks and under the same engine."""

    def __init__(self, trainer: "Trainer") -> None:
        self.trainer = trainer
        self.config = critic_config(trainer.config)
        self.engine: Engine = ENGINES[self.config.engine.name].prepare(
            lambda: build(self.config.model),
            lambda name, start, stop: initial_values(
                name, start, stop, self.config.model, self.config.run.seed
            ),
            self.config,
            trainer.group,
        )
        self.objective = ValueObjective(self.config.rl.value_clip or None)
        self._worker = Critic(self.engine, self.config)

    def values(self, rollouts: Sequence[Rollout]) -> list[Tensor]:
        """See `Critic`."""
        return self._worker.values(rollouts)

    def learn(self, batches: Sequence[Learned], step: int, position: int) -> dict[str, Any]:
        """One step, number `step`, over this rank's micro-batches of the data from `position`."""
        trainer, layout = self.trainer, self.trainer.layout
        losses: list[Tensor | None] = [None] * layout.num_micro_batches
        weights = losses.copy()
        for turn, batch in enumerate(batches):
            index = layout.micro_batch(trainer.group.rank, turn)
            trainer.seed_dropout(position, index)
            values = trainer.on_device(batch.for_critic())
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
        if not math.isfinite(norm):
            message = f"step {step}: the critic's gradient is not finite; it did not learn"
            trainer.recorder.event("critic_skipped", message, step=step)
            return {}
        return {"value_loss": total / weight_sum, "value_grad_norm": norm}

    def state(self) -> Iterator[Shard]:
        for shard in self.engine.state():
            yield shard._replace(name=PREFIX + shard.name)

    def load_state(self, checkpoint: Checkpoint) -> None:
        def read(name: str, *place: Any) -> Tensor:
            return checkpoint.read(PREFIX + name, *place)

        self.engine.load_state(read, optimizer=bool(checkpoint.names(f"{PREFIX}optimizer/")))

    def initialize(self) -> None:
        """As the reward model that is named, or else as the policy begins, with a new head."""
        self.engine.initialize()
        path = Path(self.config.rl.critic) if self.config.rl.critic else None
        if path is None and self.trainer.run.record().get("init_from"):
            path = initial_checkpoint(self.trainer.run.path)
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


def critic_config(config: Config) -> Config:
    """The configuration of a run's critic: its model, and its rate."""
    model = model_config_of(Path(config.rl.critic)) if config.rl.critic else config.model
    assert isinstance(model, ModelConfig)
    adapters = {name: getattr(config.model, name) for name in ModelConfig.model_fields if "lora_" in name}
    optimizer = config.optimizer.model_copy(update={"lr": config.rl.critic_lr or config.optimizer.lr})
    return config.model_copy(
        update={"model": model.model_copy(update={**adapters, "head": "reward"}), "optimizer": optimizer}
    )
