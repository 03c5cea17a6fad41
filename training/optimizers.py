"""Optimizers by name, over parameters by name. All of them are torch's own."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import nn

from training.config import OptimizerConfig

DECOUPLED = ("adamw",)
"""Whose weight decay is a share of the weight; that of the others is added to the gradient."""


def make_optimizer(
    parameters: Iterable[tuple[str, nn.Parameter]],
    config: OptimizerConfig,
    lr_scale: Callable[[str], float] = lambda _: 1.0,
    *,
    fused: bool = True,
) -> torch.optim.Optimizer:
    """The configured optimizer; weight decay falls on matrices alone, never on biases or gains.

    A parameter learns at the scheduled rate times `lr_scale` of its name, which its group states under that
    name and whoever sets the rate multiplies by. Decoupled weight decay is divided by it, so that their
    product, the share of a weight that is forgotten in a step, is the same for all matrices. Without `fused`,
    an element's update does not depend on where it lies in a shard.
    """
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in parameters:
        # DeepSpeed leaves an empty tensor in the place of a parameter that it spreads.
        shape = getattr(parameter, "ds_shape", parameter.shape)
        groups.setdefault((len(shape) < 2, lr_scale(name)), []).append(parameter)
    decoupled = config.name in DECOUPLED
    return _maker(config, fused)(
        [
            {
                "params": groups[is_vector, scale],
                "lr": config.lr * scale,
                "lr_scale": scale,
                "weight_decay": 0.0 if is_vector else config.weight_decay / (scale if decoupled else 1),
            }
            for is_vector, scale in sorted(groups)
        ]
    )


def _maker(config: OptimizerConfig, fused: bool) -> Callable[[Any], torch.optim.Optimizer]:
    """The class and what all groups share. Betas serve as the decay of whatever mean an optimizer keeps."""
    adam: dict[str, Any] = {"betas": config.betas, "eps": config.eps, "fused": fused}
    mean = config.betas[1]
    makers: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
        "adamw": partial(torch.optim.AdamW, **adam),
        "adam": partial(torch.optim.Adam, **adam),
        "amsgrad": partial(torch.optim.Adam, **adam, amsgrad=True),
        "sgd": partial(torch.optim.SGD, momentum=config.momentum, nesterov=config.nesterov),
        "rmsprop": partial(torch.optim.RMSprop, alpha=mean, eps=config.eps, momentum=config.momentum),
        "adagrad": partial(torch.optim.Adagrad, eps=config.eps),
        "adadelta": partial(torch.optim.Adadelta, rho=mean, eps=config.eps),
        "rprop": lambda groups: torch.optim.Rprop(
            [{name: value for name, value in group.items() if name != "weight_decay"} for group in groups]
        ),
    }
    return makers[config.name]
