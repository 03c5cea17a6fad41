"""Optimizers by name, over parameters by name."""

from collections.abc import Callable, Iterable

import torch
from torch import nn

from training.config import OptimizerConfig


def make_optimizer(
    parameters: Iterable[tuple[str, nn.Parameter]],
    config: OptimizerConfig,
    lr_scale: Callable[[str], float] = lambda _: 1.0,
    *,
    fused: bool = True,
) -> torch.optim.Optimizer:
    """The configured optimizer; weight decay falls on matrices alone, never on biases or gains.

    A parameter learns at the scheduled rate times `lr_scale` of its name, which its group states under that
    name and whoever sets the rate multiplies by. Weight decay is divided by it, so that their product, the
    share of a weight that is forgotten in a step, is the same for all matrices. Without `fused`, an element's
    update does not depend on where it lies in a shard.
    """
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in parameters:
        groups.setdefault((parameter.ndim < 2, lr_scale(name)), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": groups[is_vector, scale],
                "lr": config.lr * scale,
                "lr_scale": scale,
                "weight_decay": 0.0 if is_vector else config.weight_decay / scale,
            }
            for is_vector, scale in sorted(groups)
        ],
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        fused=fused,
    )
