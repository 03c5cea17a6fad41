"""Tasks that a model is asked while it is trained (`eval.tasks`).

What asks them is of the room above this one, which measures what is trained here; so it is found by its name,
and only where it is wanted.
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.config import ModelConfig
from seedbed.errors import ConfigError
from training.config import Config
from training.datasets import ONLY

if TYPE_CHECKING:
    from training.trainer import Trainer

ROOM = "evals.in_training"


def with_asked_tasks(config: Config) -> Config:
    """The configuration with tasks by names that hold everywhere; ConfigError where they cannot be asked."""
    if not config.eval.tasks:
        return config
    if not isinstance(config.model, ModelConfig) or config.model.head != "lm":
        raise ConfigError("eval.tasks are asked of a model that predicts text", "leave them out")
    if not config.eval.every_steps:
        raise ConfigError("eval.tasks are asked at validations: set eval.every_steps", "or leave it out")
    has_held_out = not config.data.paths and (config.data.holdout_fraction > 0 or bool(config.data.path))
    names = importlib.import_module(ROOM).checked(config.eval.tasks, has_held_out=has_held_out)
    return config.model_copy(update={"eval": config.eval.model_copy(update={"tasks": names})})


def asked_tasks(trainer: "Trainer") -> Any:
    """What asks them, as `evals.in_training.TasksInTraining`; None without any."""
    config = trainer.config
    if not config.eval.tasks:
        return None
    held_out = trainer.datasets.get(ONLY)
    return importlib.import_module(ROOM).TasksInTraining(
        config.eval.tasks,
        config.eval.task_items,
        trainer.engine.logits,
        trainer.tokenizer,
        context=config.model.context,
        device=trainer.group.device,
        held_out=Path(held_out.location.absolute) if held_out else None,
    )
