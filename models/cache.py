"""What a layer remembers of the tokens so far while a text is being generated.

Shapes: B batch, G heads of what is cached, T time, K its size.
"""

import torch
from torch import Tensor

from models.config import ModelConfig


class LayerCache:
    """The cached tensors of one layer, in fixed buffers: keys and values, or a latent."""

    def __init__(self, batch: int, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> None:
        self.buffers_BGTK = [
            torch.zeros(batch, heads, config.context, size, device=device, dtype=dtype)
            for heads, size in config.cached_per_token
        ]
        self.length = 0

    def extend(self, *new_BGTK: Tensor) -> list[Tensor]:
        """Append the new positions, one tensor for each buffer; returns all positions so far."""
        end = self.length + new_BGTK[0].shape[2]
        for buffer, new in zip(self.buffers_BGTK, new_BGTK, strict=True):
            buffer[:, :, self.length : end] = new
        self.length = end
        return [buffer[:, :, :end] for buffer in self.buffers_BGTK]
