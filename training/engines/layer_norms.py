"""How large each layer's weights, gradients and activations are in one step, whichever rank holds what.

Norms of weights and gradients are roots of sums of squares over all their parts; those of activations are the
root mean square of what a block gives, over all elements of the step's micro-batches.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from models.families import block_of

OUTSIDE = "outside blocks"
"""The layer of embeddings, last norm and head."""


class LayerNorms:
    """Watches one step of a model whose parameters are called `names`."""

    def __init__(self, model: nn.Module, names: Iterable[str]) -> None:
        self._layer_of = [block_of(name) or OUTSIDE for name in names]
        self._layers = list(dict.fromkeys(self._layer_of))
        self._sums = {layer: [0.0, 0.0] for layer in self._layers if layer != OUTSIDE}
        self._pending: list[tuple[str, Tensor, int]] = []
        self._hooks = [
            model.get_submodule(layer).register_forward_hook(partial(self._see, layer))
            for layer in self._sums
        ]

    @torch.no_grad()
    def _see(self, layer: str, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        self._pending.append((layer, output.detach().double().square().sum(), output.numel()))

    def end_micro_batch(self, *, counts: bool) -> None:
        """What was seen belongs to the step, unless it was a rank's turn without work."""
        for layer, squares, number in self._pending:
            if counts:
                self._sums[layer][0] += squares.item()
                self._sums[layer][1] += number
        self._pending.clear()

    def end(
        self,
        weights: list[Tensor],
        gradients: list[Tensor | None],
        sum_over_parts: Callable[[Tensor], Tensor],
        sum_over_ranks: Callable[[list[float]], list[float]],
    ) -> dict[str, dict[str, float]]:
        """`weights`, `gradients`, `activations` -> layer -> its norm; tensors are this rank's parts."""
        for hook in self._hooks:
            hook.remove()
        squares = torch.stack([self._squares(weights), self._squares(gradients)])
        of_weights, of_gradients = sum_over_parts(squares).sqrt().tolist()
        flat = sum_over_ranks([value for sums in self._sums.values() for value in sums])
        means = [
            (total / number) ** 0.5 if number else 0.0
            for total, number in zip(flat[::2], flat[1::2], strict=True)
        ]
        return {
            "weights": dict(zip(self._layers, of_weights, strict=True)),
            "gradients": dict(zip(self._layers, of_gradients, strict=True)),
            "activations": dict(zip(self._sums, means, strict=True)),
        }

    def _squares(self, parts: list[Any]) -> Tensor:
        device = next(part.device for part in parts if part is not None)
        squares = torch.zeros(len(self._layers), dtype=torch.float64, device=device)
        for layer, part in zip(self._layer_of, parts, strict=True):
            if part is not None:
                squares[self._layers.index(layer)] += part.double().square().sum()
        return squares
