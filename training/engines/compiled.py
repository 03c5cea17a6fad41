"""Blocks that are compiled by torch.compile, or run eagerly where that cannot be.

Each block is compiled by itself: all that are alike share one compilation (those of another rate of
stochastic depth are not), and what an engine does between them (gathering parameters, sharing gradients)
stays outside. Only training is compiled: its batches have one shape.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException


class CompiledBlocks:
    """Replaces the forward of each block; names of parameters stay what they are.

    `memory_budget` is the share of a block's activations that may be kept, 1 for whatever is quickest.
    """

    def __init__(self, blocks: Iterable[nn.Module], memory_budget: float) -> None:
        self.memory_budget = memory_budget
        self.failure = ""
        """Why blocks run eagerly; empty while they are compiled."""
        self.is_mixed = False
        """Some ran compiled before the failure."""
        self._succeeded = False
        # Buckets of gradients are cut within DistributedDataParallel; blocks are smaller already.
        torch._dynamo.config.optimize_ddp = False
        blocks = list(blocks)
        # A block beyond the limit of compilations would run eagerly without a word.
        torch._dynamo.config.fail_on_recompile_limit_hit = True
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 2 * len(blocks))
        torch._functorch.config.activation_memory_budget = memory_budget
        for block in blocks:
            compiled = torch.compile(block.forward, dynamic=False)
            block.forward = partial(self._forward, block, block.forward, compiled)

    def _forward(self, block: nn.Module, eager: Any, compiled: Any, *inputs: Any, **named: Any) -> Any:
        if block.training and not self.failure:
            try:
                output = compiled(*inputs, **named)
            except (TorchDynamoException, FailOnRecompileLimitHit) as error:
                self.failure = str(error).strip().split("\n")[0]
                self.is_mixed = self._succeeded
            else:
                self._succeeded = True
                return output
        return eager(*inputs, **named)

    def __str__(self) -> str:
        if self.failure:
            return "eager"
        return "compiled" if self.memory_budget == 1 else f"compiled, memory budget {self.memory_budget}"
