"""Blocks whose activations are recomputed, by the policies that models/accounting.py plans for."""

from collections.abc import Iterable
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

PRODUCTS = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
}


def _keep_products(_context, operation, *_args, **_kwargs):
    return CheckpointPolicy.MUST_SAVE if operation in PRODUCTS else CheckpointPolicy.PREFER_RECOMPUTE


def checkpointed(blocks: Iterable[nn.Module], policy: str) -> None:
    """Replace each block's forward by one that keeps what `policy` says."""
    for block in blocks:
        if policy == "full":
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        elif policy == "selective":
            contexts = partial(create_selective_checkpoint_contexts, _keep_products)
            block.forward = partial(checkpoint, block.forward, use_reentrant=False, context_fn=contexts)
