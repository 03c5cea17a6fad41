"""A sum of losses over tokens of which only one chunk's logits ever exist.

Logits are the largest tensor of most models: N V numbers, several times over in the backward. A sum's
gradient is the sum of its chunks' gradients, and the gradient of a scalar is known, up to a factor, as soon
as the scalar is. So each chunk's logits are computed, differentiated and dropped within the forward, and the
backward only multiplies by the factor. Nothing is computed twice; what is held in place of the logits is one
gradient of the hidden states and one of the head. (The same idea: Hsu et al. 2024, "Liger Kernel",
arXiv:2410.10989, section 3.2.)

Shapes: N tokens, n tokens of one chunk, D width, V vocabulary.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

ChunkLoss = Callable[..., Tensor]
"""(logits [n, V] of a chunk, its part of each of the rows ...) -> the summed loss, a scalar."""


def sum_over_chunks(
    loss: ChunkLoss,
    hidden_ND: Tensor,
    head_weight_VD: Tensor,
    bias_V: Tensor | None,
    rows: tuple[Tensor, ...],
    *,
    num_chunks: int,
) -> Tensor:
    """Sum of loss(hidden W^T + bias, *rows) over chunks of tokens; a float32 scalar.

    `rows` [N, ...] are cut like the hidden states. Gradients reach the hidden states, the head and its bias,
    not what stands in `rows` or what `loss` closes over.
    """
    inputs = (hidden_ND, head_weight_VD, bias_V)
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs):
        return _SumOverChunks.apply(loss, num_chunks, *inputs, *rows)
    total = torch.zeros((), device=hidden_ND.device)
    for hidden_nD, *chunk in _chunks(num_chunks, hidden_ND, *rows):
        total += loss(F.linear(hidden_nD, head_weight_VD, bias_V), *chunk)
    return total


def _chunks(num_chunks: int, *rows: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(row.chunk(num_chunks) for row in rows), strict=True)


class _SumOverChunks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        loss: ChunkLoss,
        num_chunks: int,
        hidden_ND: Tensor,
        head_weight_VD: Tensor,
        bias_V: Tensor | None,
        *rows: Tensor,
    ) -> Tensor:
        # Leaves of their own, so that each chunk's graph ends here and goes with it.
        needs_hidden, needs_head, needs_bias = ctx.needs_input_grad[2:5]
        head_weight_VD = head_weight_VD.detach().requires_grad_(needs_head)
        bias_V = None if bias_V is None else bias_V.detach().requires_grad_(needs_bias)
        hidden_grads: list[Tensor] = []
        total = torch.zeros((), device=hidden_ND.device)
        for hidden_nD, *chunk in _chunks(num_chunks, hidden_ND.detach(), *rows):
            hidden_nD.requires_grad_(needs_hidden)
            leaves = [x for x in (hidden_nD, head_weight_VD, bias_V) if x is not None and x.requires_grad]
            with torch.enable_grad():
                part = loss(F.linear(hidden_nD, head_weight_VD, bias_V), *chunk)
            torch.autograd.backward(part, inputs=leaves)
            if hidden_nD.grad is not None:
                hidden_grads.append(hidden_nD.grad)
            total += part.detach()
        ctx.save_for_backward(
            torch.cat(hidden_grads) if hidden_grads else None,
            head_weight_VD.grad,
            None if bias_V is None else bias_V.grad,
        )
        ctx.num_rows = len(rows)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        grads = [None if grad is None else grad * factor for grad in ctx.saved_tensors]
        return (None, None, *grads, *[None] * ctx.num_rows)
