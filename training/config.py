"""The configuration of a training run: typed, strict, frozen.

Every field is of one kind. *Identity*: the run's result depends on it, so changing it on resume
is refused. *Schedule*: may change on resume, and the change is recorded. *Placement*: where and
how the run executes and what it reports; free to change.
"""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel, model_validator

from data.config import DataConfig, OrderConfig
from models.config import ModelConfig
from models.families import CONFIGS, AnyModelConfig
from models.families import kind_of as kind_of_model
from seedbed.files import digest_of
from training.objective_settings import ObjectiveConfig
from training.resilience import GuardsConfig, RestartsConfig, TimeoutsConfig
from training.rl.settings import RlConfig
from training.sections import (
    ADAMS,
    FLAT,
    WHOLE,
    BatchConfig,
    CheckpointConfig,
    EngineConfig,
    EvalConfig,
    OptimizerConfig,
    RunConfig,
    ScheduleConfig,
    Section,
    TrackingConfig,
    profiled_steps,
)

Kind = Literal["identity", "schedule", "placement"]


class Config(Section):
    """Everything that a training run is made from."""

    run: RunConfig = RunConfig()
    data: DataConfig = DataConfig()
    order: OrderConfig = OrderConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    rl: RlConfig = RlConfig()
    model: AnyModelConfig = ModelConfig()
    batch: BatchConfig = BatchConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    engine: EngineConfig = EngineConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    guards: GuardsConfig = GuardsConfig()
    restarts: RestartsConfig = RestartsConfig()
    timeouts: TimeoutsConfig = TimeoutsConfig()
    eval: EvalConfig = EvalConfig()
    tracking: TrackingConfig = TrackingConfig()

    @property
    def num_workers(self) -> int:
        """Processes: the ranks that train, and those beside them that have the critic, or only score."""
        return self.scoring_ranks.stop

    @property
    def num_beside(self) -> int:
        """Those of them that are no ranks of the run's model."""
        return self.num_workers - self.engine.num_ranks

    @property
    def critic_ranks(self) -> range:
        """Those of them that have the critic."""
        return range(self.engine.num_ranks, self.engine.num_ranks + self.rl.critic_workers)

    @property
    def scoring_ranks(self) -> range:
        """Those of them that only score."""
        return range(self.critic_ranks.stop, self.critic_ranks.stop + self.rl.scoring_workers)

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        if self.engine.traits.is_zero and self.tracking.layer_norms:
            raise ValueError(
                f'tracking.layer_norms with engine.name = "{self.engine.name}": gradients are '
                "DeepSpeed's until the update; set it to 0, or engine.name to fsdp or ddp"
            )
        if self.engine.traits.is_zero and self.optimizer.trained != "all":
            raise ValueError(
                f'optimizer.trained = "{self.optimizer.trained}" with engine.name = "{self.engine.name}": '
                'DeepSpeed spreads what learns alone; set engine.name to fsdp or ddp, or train "all"'
            )
        base = getattr(self.model, "lora_base", "full")
        if base != "full" and (self.engine.name != "ddp" or self.optimizer.ema_decay):
            raise ValueError(
                f'model.lora_base = "{base}" is for engine.name = "ddp", without '
                "optimizer.ema_decay: every rank has the quantised matrices whole, and they have no averages"
            )
        if self.engine.traits.is_zero and self.guards.recompute_every:
            raise ValueError(
                f'guards.recompute_every with engine.name = "{self.engine.name}": DeepSpeed takes no forward '
                "without its backward; set it to 0, or engine.name to fsdp or ddp"
            )
        if self.engine.traits.is_zero and self.optimizer.name not in FLAT:
            raise ValueError(
                f'optimizer.name = "{self.optimizer.name}" with engine.name = "{self.engine.name}": '
                f"DeepSpeed updates runs of elements, by {', '.join(FLAT)}; take one, or engine.name = fsdp"
            )
        if self.schedule.name == "wsd" and self.schedule.warmup_share + self.schedule.decay_share > 1:
            raise ValueError(
                f"schedule.warmup_share = {self.schedule.warmup_share} and schedule.decay_share = "
                f"{self.schedule.decay_share} overlap; together they may be at most 1"
            )
        if self.eval.restore_best and not self.checkpoint.keep_best:
            raise ValueError("eval.restore_best needs checkpoint.keep_best = true")
        optimizer = self.optimizer.name
        if getattr(self.model, "mup_base_width", 0) and optimizer not in ADAMS:
            raise ValueError(
                f'model.mup_base_width scales rates as Adam needs it, not optimizer.name = "{optimizer}"; '
                f"leave it out, or take one of {', '.join(ADAMS)}"
            )
        if optimizer in WHOLE and self.engine.offload != "none":
            raise ValueError(
                f'optimizer.name = "{optimizer}" needs whole tensors on the device, which engine.offload '
                "moves to the host; leave out one of them"
            )
        if optimizer == "rprop" and (self.schedule.name != "constant" or self.schedule.warmup_share):
            raise ValueError(
                'optimizer.name = "rprop" finds its own steps and reads a rate in the first one alone; set '
                'schedule.name = "constant" and schedule.warmup_share = 0'
            )
        if self.tracking.profile and profiled_steps(self.tracking.profile)[-1] > self.run.steps:
            raise ValueError(
                f'tracking.profile = "{self.tracking.profile}" goes beyond run.steps = {self.run.steps}'
            )
        return self


def kind_of(section: str, field: str) -> Kind:
    """Whether a field is identity, schedule or placement."""
    # What the data is made of is identified by the dataset's digest, not by how it was asked for.
    if section == "data":
        return "placement"
    # What a model is made of is identity, whatever its family.
    if section == "model":
        return "identity"
    info = Config.model_fields[section].annotation.model_fields[field]  # type: ignore[union-attr]
    extra = info.json_schema_extra
    return extra["kind"] if isinstance(extra, dict) and "kind" in extra else "identity"


def section_models(model: Any = None) -> dict[str, type[BaseModel]]:
    """Table -> its type; that of [model] is chosen by the family in its table `model`, if it exists."""
    sections: dict[str, Any] = {name: info.annotation for name, info in Config.model_fields.items()}
    family_kind = kind_of_model(model or {}) or "decoder"
    return {**sections, "model": CONFIGS[family_kind]}


def items(config: Config) -> Iterator[tuple[str, Any]]:
    """All fields as (dotted name, plain value)."""
    for section, fields in config.model_dump(mode="json").items():
        for field, value in fields.items():
            yield f"{section}.{field}", value


def config_hash(config: Config) -> str:
    """SHA-256 of every field."""
    return digest_of(dict(items(config)))


def identity_of(config: Config) -> dict[str, Any]:
    """The fields that the run's result depends on."""
    return {name: value for name, value in items(config) if kind_of(*name.split(".", 1)) == "identity"}


def differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Dotted name -> (old value, new value) of every field that differs."""
    before, after = dict(items(old)), dict(items(new))
    # Another family of models has other fields.
    names = [*before, *(name for name in after if name not in before)]
    return {
        name: (before.get(name), after.get(name))
        for name in names
        if (name in before, before.get(name)) != (name in after, after.get(name))
    }
