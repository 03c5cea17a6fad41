"""Tasks: what a run learns from its data, and how samples of it look.

Read base.py, then causal_lm.py; each other file is another way of learning. `[objective]` chooses.
"""

from models.bert.config import EncoderConfig
from models.families import AnyModelConfig, kind_of
from seedbed.errors import ConfigError
from training.config import Config
from training.sections import ObjectiveConfig
from training.tasks.base import Datasets, Task, each_tensor
from training.tasks.causal_lm import CausalLMTask, DistillationTask
from training.tasks.classification import ClassificationTask
from training.tasks.masked_lm import MaskedLMTask
from training.tasks.span_corruption import SpanCorruptionTask

__all__ = ["Datasets", "Task", "each_tensor", "filled_in", "make_task", "objective_of"]

HEADS = {"masked_lm": "masked_lm", "pretraining": "masked_lm", "sequence_classification": "classification"}
"""Head of an encoder -> the objective that trains it."""
OBJECTIVES = {"decoder": ("causal_lm", "distillation"), "t5": ("span_corruption",)}
"""Kind of model -> the objectives that train it; the first is meant unless another is asked for."""
TASKS: dict[str, type[Task]] = {
    "causal_lm": CausalLMTask,
    "distillation": DistillationTask,
    "masked_lm": MaskedLMTask,
    "classification": ClassificationTask,
    "span_corruption": SpanCorruptionTask,
}
"""Objective -> how its samples look."""
DECODERS_ALONE = (("order", ("packing", "overflow", "within_documents")), ("eval", ("prompt",)))
"""What is read for decoders alone: how documents are packed, and the text that is continued."""


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
    for section, fields in (("objective", ObjectiveConfig.model_fields), *DECODERS_ALONE):
        given = getattr(config, section)
        for field in fields:
            default = type(given).model_fields[field].get_default(call_default_factory=True)
            idle = field not in read if section == "objective" else name not in OBJECTIVES["decoder"]
            if idle and getattr(given, field) != default:
                raise ConfigError(
                    f"{section}.{field} = {getattr(given, field)!r} does nothing for the objective {name} of "
                    f"a {config.model.family}",
                    "leave it out",
                )


def make_task(config: Config, datasets: Datasets) -> Task:
    """The task of a configuration whose sizes are filled in."""
    return TASKS[objective_of(config)](config, datasets)


def filled_in(config: Config, datasets: Datasets) -> AnyModelConfig:
    """`config.model` with the sizes that the data decide."""
    return TASKS[objective_of(config)].filled_in(config, datasets)
