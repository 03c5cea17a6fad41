"""Tasks: what a run learns from its data, and how samples of it look.

Read base.py, then causal_lm.py; each other file is another way of learning. `[objective]` chooses.
"""

from models.bert.config import EncoderConfig
from models.families import AnyModelConfig, kind_of
from seedbed.errors import ConfigError
from training.config import Config
from training.objective_settings import ObjectiveConfig
from training.rl.settings import ALGORITHMS, RlConfig
from training.tasks.base import Datasets, Task, each_tensor
from training.tasks.candidates import IpoTask, KtoTask, OrpoTask, PreferenceTask, RewardTask, SimpoTask
from training.tasks.causal_lm import CausalLMTask, DistillationTask
from training.tasks.classification import ClassificationTask
from training.tasks.masked_lm import MaskedLMTask
from training.tasks.rollouts import RolloutTask
from training.tasks.span_corruption import SpanCorruptionTask
from training.tasks.supervised import SupervisedTask

__all__ = ["Datasets", "Task", "each_tensor", "filled_in", "make_task", "objective_of"]

HEADS = {
    "masked_lm": "masked_lm",
    "pretraining": "masked_lm",
    "sequence_classification": "classification",
    "reward": "reward",
}
"""Head of an encoder -> the objective that trains it."""
OBJECTIVES = {
    "decoder": ("causal_lm", "distillation", "sft", "dpo", "ipo", "kto", "orpo", "simpo", *ALGORITHMS),
    "t5": ("span_corruption",),
}
"""Kind of model -> the objectives that train it; the first is meant unless another is asked for."""
TASKS: dict[str, type[Task]] = {
    "causal_lm": CausalLMTask,
    "distillation": DistillationTask,
    "sft": SupervisedTask,
    "dpo": PreferenceTask,
    "ipo": IpoTask,
    "kto": KtoTask,
    "orpo": OrpoTask,
    "simpo": SimpoTask,
    "reward": RewardTask,
    "masked_lm": MaskedLMTask,
    "classification": ClassificationTask,
    "span_corruption": SpanCorruptionTask,
    **dict.fromkeys(ALGORITHMS, RolloutTask),
}
"""Objective -> how its samples look."""
READ_BY = (
    ("order", ("packing", "overflow", "within_documents"), ("causal_lm", "distillation", "sft")),
    ("eval", ("prompt",), OBJECTIVES["decoder"]),
)
"""What some objectives alone read: how documents are packed, and the text that is continued."""


def objective_of(config: Config) -> str:
    """The name of the objective; ConfigError when it does not train such a model."""
    model, asked = config.model, config.objective.name
    if isinstance(model, EncoderConfig):
        if model.head not in HEADS:
            raise ConfigError(
                f'no objective trains model.head = "{model.head}" yet',
                f"set model.head to one of: {', '.join(HEADS)}",
            )
        possible: tuple[str, ...] = (HEADS[model.head],)
    elif getattr(model, "head", "") == "reward":
        possible = ("reward",)
    else:
        possible = OBJECTIVES[kind_of(model) or ""]
    if asked not in ("auto", *possible):
        what = f'{model.family} with model.head = "{model.head}"' if hasattr(model, "head") else model.family
        raise ConfigError(
            f'objective.name = "{asked}" does not train a {what}',
            f"leave it out, or set it to one of: {', '.join(possible)}",
        )
    name = possible[0] if asked == "auto" else asked
    _refuse_idle_settings(config, name)
    return name


def _refuse_idle_settings(config: Config, name: str) -> None:
    """Raises ConfigError for a setting that was made and that nothing in objective `name` reads."""
    read = {"name", *TASKS[name].settings}
    own = ("objective", tuple(field for field in ObjectiveConfig.model_fields if field not in read), ())
    rl = ("rl", tuple(RlConfig.model_fields), tuple(ALGORITHMS))
    for section, fields, readers in (own, rl, *READ_BY):
        given = getattr(config, section)
        for field in fields:
            default = type(given).model_fields[field].get_default(call_default_factory=True)
            if name not in readers and getattr(given, field) != default:
                raise ConfigError(
                    f"{section}.{field} = {getattr(given, field)!r} does nothing for the objective {name} of "
                    f"a {config.model.family}",
                    "leave it out",
                )


def make_task(config: Config, datasets: Datasets) -> Task:
    """The task of a configuration whose sizes are filled in; its objective then has a name."""
    name = objective_of(config)
    objective = config.objective.model_copy(update={"name": name})
    return TASKS[name](config.model_copy(update={"objective": objective}), datasets)


def filled_in(config: Config, datasets: Datasets) -> AnyModelConfig:
    """`config.model` with the sizes that the data decide."""
    return TASKS[objective_of(config)].filled_in(config, datasets)
