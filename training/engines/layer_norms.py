"""How large each layer's weights, gradients and activations are in one step, whichever rank holds what.

Norms of weights and gradients are roots of sums of squares over all their parts; those of activations are the
root mean square of what a block gives, over all elements of the step's micro-batches.
"""

import math
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

    def close(self) -> None:
        """Look no longer."""
        for hook in self._hooks:
            hook.remove()

    def end(
        self,
        weights: list[Tensor],
        gradients: list[Tensor | None],
        total_weight: float,
        sum_over_parts: Callable[[Tensor], Tensor],
        sum_over_ranks: Callable[[list[float]], list[float]],
    ) -> dict[str, dict[str, float | None]]:
        """`weights`, `gradients`, `activations` -> layer -> its norm, None where that is not finite.

        Tensors are this rank's parts; gradients are those of losses that `total_weight` is yet to divide.
        """
        self.close()
        squares = torch.stack([self._squares(weights), self._squares(gradients)])
        of_weights, of_gradients = sum_over_parts(squares).sqrt().tolist()
        flat = sum_over_ranks([value for sums in self._sums.values() for value in sums])
        means = [
            (total / number) ** 0.5 if number else 0.0
            for total, number in zip(flat[::2], flat[1::2], strict=True)
        ]
        return {
            "weights": _by_layer(self._layers, of_weights),
            "gradients": _by_layer(self._layers, [norm / total_weight for norm in of_gradients]),
            "activations": _by_layer(self._sums, means),
        }

    def _squares(self, parts: list[Any]) -> Tensor:
        device = next(part.device for part in parts if part is not None)
        squares = torch.zeros(len(self._layers), dtype=torch.float64, device=device)
        for layer, part in zip(self._layer_of, parts, strict=True):
            if part is not None:
                squares[self._layers.index(layer)] += part.double().square().sum()
        return squares


def _by_layer(layers: Iterable[str], norms: list[float]) -> dict[str, float | None]:
    """JSON has no word for what is not finite."""
    return {layer: norm if math.isfinite(norm) else None for layer, norm in zip(layers, norms, strict=True)}
