"""Activation checkpointing: what blocks keep for the backward, the rest being recomputed (Chen et al. 2016).

The policies are those of `models.accounting`. Recomputation repeats the operations of the forward on the same
values, dropout's random numbers included, so it changes no bit of a gradient.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

aten = torch.ops.aten
PRODUCTS = {
    aten.mm.default,
    aten.addmm.default,
    aten._scaled_dot_product_flash_attention_for_cpu.default,
    aten._scaled_dot_product_flash_attention.default,
    aten._scaled_dot_product_efficient_attention.default,
    aten._scaled_dot_product_cudnn_attention.default,
}
"""What `selective` keeps: the results of linear layers and of fused attention."""


def recompute(blocks: Iterable[nn.Module], policy: str) -> None:
    """Have each block keep, while it is trained, only what `policy` says: full or selective.

    A block's forward is replaced, not wrapped in a module: names of parameters stay what they are.
    """
    options: dict[str, Any] = {"use_reentrant": False}
    if policy == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _keep_products)
    for block in blocks:
        block.forward = partial(_forward, block, block.forward, options)


def _forward(block: nn.Module, forward: Any, options: dict[str, Any], *inputs: Any, **named: Any) -> Any:
    if block.training and torch.is_grad_enabled():
        return checkpoint(forward, *inputs, **options, **named)
    return forward(*inputs, **named)


def _keep_products(_: object, operation: Any, *inputs: Any, **named: Any) -> CheckpointPolicy:
    if operation not in PRODUCTS:
        return CheckpointPolicy.PREFER_RECOMPUTE
    names = (argument.name for argument in operation._schema.arguments)
    # Attention that draws random numbers is repeated: without its draws, those after it would be others.
    draws = {**dict(zip(names, inputs, strict=False)), **named}.get("dropout_p", 0.0) > 0
    return CheckpointPolicy.PREFER_RECOMPUTE if draws else CheckpointPolicy.MUST_SAVE
