"""DeepSpeed's configuration, derived from ours; a user adds to it, and contradicts nothing.

Does not import torch.
"""

from typing import Any

from models.families import count_parameters
from seedbed.errors import ConfigError
from training.batch_layout import batch_layout
from training.config import Config
from training.engine_traits import MAX_ZERO_BUCKET

_OURS = {
    "optimizer": "[optimizer]",
    "scheduler": "[schedule]",
    "amp": "engine.precision",
    "elasticity": "batch.tokens_per_step",
    "curriculum_learning": "[data]",
    "data_efficiency": "[data]",
}
"""Tables of DeepSpeed that would do what a table or field of ours does -> that one."""


def zero_settings(config: Config) -> dict[str, Any]:
    """What `deepspeed.initialize` is given: what follows from our fields, and `engine.deepspeed` beside it.

    Raises ConfigError when the latter gives another value to what follows from a field.
    """
    if taken := sorted(_OURS.keys() & config.engine.deepspeed.keys()):
        raise ConfigError(
            f"engine.deepspeed.{taken[0]} would stand beside {_OURS[taken[0]]}, which decides that",
            f"leave it out, and set {_OURS[taken[0]]}",
        )
    layout = batch_layout(config)
    zero: dict[str, Any] = {"stage": int(config.engine.name.removeprefix("zero"))}
    host = {"device": "cpu", "pin_memory": config.engine.device == "cuda"}
    offloaded = {"none": (), "optimizer": ("optimizer",), "parameters": ("optimizer", "param")}
    for part in ("optimizer", "param"):
        zero[f"offload_{part}"] = host if part in offloaded[config.engine.offload] else {"device": "none"}
    derived: dict[str, Any] = {
        "train_batch_size": layout.micro_batch_size * layout.turns * layout.num_ranks,
        "train_micro_batch_size_per_gpu": layout.micro_batch_size,
        "gradient_accumulation_steps": layout.turns,
        "gradient_clipping": config.optimizer.clip_norm,
        "zero_optimization": zero,
        # The optimizer is torch's, whichever it is and wherever its state lies.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        # Precision is our autocast, and losses are in our records.
        "fp16": {"enabled": False},
        "bf16": {"enabled": False},
        "torch_autocast": {"enabled": False},
        "steps_per_print": None,
    }
    settings = _merged(derived, config.engine.deepspeed, "engine.deepspeed")
    # Elements of a buffer that is allocated whole: no more than there are gradients.
    bucket = min(MAX_ZERO_BUCKET, count_parameters(config.model).total)
    settings["zero_optimization"].setdefault("reduce_bucket_size", bucket)
    return settings


def _merged(derived: dict[str, Any], given: dict[str, Any], where: str) -> dict[str, Any]:
    merged = dict(derived)
    for key, value in given.items():
        name = f"{where}.{key}"
        if isinstance(value, dict) and isinstance(derived.get(key, {}), dict):
            merged[key] = _merged(derived.get(key, {}), value, name)
        elif key in derived and derived[key] != value:
            raise ConfigError(
                f"{name} = {value!r} contradicts {derived[key]!r}, which follows from the configuration",
                "leave it out, and set the field that it follows from",
            )
        else:
            merged[key] = value
    return merged
