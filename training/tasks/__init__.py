"""Tasks: what a run learns from its data, and how samples of it look.

Read base.py, then causal_lm.py; each other file is another way of learning. `[objective]` chooses.
"""

from typing import Any

from models.bert.config import EncoderConfig
from models.families import AnyModelConfig, kind_of
from seedbed.errors import ConfigError
from training.config import Config
from training.tasks.base import Datasets, Task, each_tensor

__all__ = ["Datasets", "Task", "each_tensor", "filled_in", "make_task", "objective_of"]

HEADS = {"masked_lm": "masked_lm", "pretraining": "masked_lm", "sequence_classification": "classification"}
"""Head of an encoder -> the objective that trains it."""
OBJECTIVES = {"decoder": ("causal_lm", "distillation"), "t5": ("span_corruption",)}
"""Kind of model -> the objectives that train it; the first is meant unless another is asked for."""


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
    if config.eval.prompt and possible != OBJECTIVES["decoder"]:
        raise ConfigError(
            f"eval.prompt is continued at every validation, which a {model.family} cannot do",
            "leave eval.prompt out",
        )
    if config.order.packing != "concat" and possible != OBJECTIVES["decoder"]:
        raise ConfigError(
            f'order.packing = "{config.order.packing}" packs documents for decoders',
            f"leave it out for a {model.family}",
        )
    return possible[0] if asked == "auto" else asked


def make_task(config: Config, datasets: Datasets) -> Task:
    """The task of a configuration whose sizes are filled in."""
    task: Task = _task(config)(config, datasets)
    return task


def filled_in(config: Config, datasets: Datasets) -> AnyModelConfig:
    """`config.model` with the sizes that the data decide."""
    model: AnyModelConfig = _task(config).filled_in(config, datasets)
    return model


def _task(config: Config) -> Any:
    name = objective_of(config)
    if name == "masked_lm":
        from training.tasks.masked_lm import MaskedLMTask

        return MaskedLMTask
    if name == "classification":
        from training.tasks.classification import ClassificationTask

        return ClassificationTask
    if name == "span_corruption":
        from training.tasks.span_corruption import SpanCorruptionTask

        return SpanCorruptionTask
    from training.tasks.causal_lm import CausalLMTask, DistillationTask

    return DistillationTask if name == "distillation" else CausalLMTask
