"""The decoder-only transformer, as a textbook would write it.

    x = embed(tokens) (+ positions)
    for each block:  x = x + attention(norm(x));  x = x + mlp(norm(x))
    logits = head(norm(x))

Nothing here knows about devices, sharding or precision. Parameter names are canonical: they
are what checkpoints, hashes and initialisation are keyed by.

Shapes: B batch, T time, D width, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import ModelConfig
from models.parts import Attention, LayerCache, document_mask, make_mlp, make_norm, rotary_angles


class Block(nn.Module):
    """One pre-norm layer: attention, then MLP, each added to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = make_norm(config)
        self.attention = Attention(config)
        self.mlp_norm = make_norm(config)
        self.mlp = make_mlp(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x_BTD: Tensor,
        angles: tuple[Tensor, Tensor] | None = None,
        cache: LayerCache | None = None,
        mask_B1TT: Tensor | None = None,
    ) -> Tensor:
        x_BTD = x_BTD + self.dropout(self.attention(self.attention_norm(x_BTD), angles, cache, mask_B1TT))
        return x_BTD + self.dropout(self.mlp(self.mlp_norm(x_BTD)))


class Transformer(nn.Module):
    """Tokens [B, T] in, logits [B, T, V] out; position t sees tokens 0..t only.

    With `documents` [B, T], it sees those of its own document only; with `positions` [B, T], these count
    instead of 0..T-1. Neither goes with a cache.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.positions = nn.Embedding(config.context, config.width) if config.positions == "learned" else None
        self.dropout = nn.Dropout(config.dropout)
        # A dictionary, not a list, so that names survive when layers are split over devices.
        self.blocks = nn.ModuleDict({str(i): Block(config) for i in range(config.num_layers)})
        self.norm = make_norm(config)
        self.head = None if config.tie_embeddings else nn.Linear(config.width, config.vocab_size, bias=False)

    def forward(
        self,
        tokens_BT: Tensor,
        cache: list[LayerCache] | None = None,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
    ) -> Tensor:
        past = cache[0].length if cache else 0
        if positions is None:
            positions = torch.arange(past, past + tokens_BT.shape[1], device=tokens_BT.device)
        x_BTD = self.embedding(tokens_BT)
        angles = None
        if self.positions is not None:
            x_BTD = x_BTD + self.positions(positions)
        else:
            angles = rotary_angles(positions, self.config)
        mask_B1TT = None if documents is None else document_mask(documents)
        x_BTD = self.dropout(x_BTD)
        for index, block in enumerate(self.blocks.values()):
            x_BTD = block(x_BTD, angles, cache[index] if cache else None, mask_B1TT)
        x_BTD = self.norm(x_BTD)
        return F.linear(x_BTD, self.embedding.weight) if self.head is None else self.head(x_BTD)

    def new_cache(self, batch: int) -> list[LayerCache]:
        """An empty key-value cache for `batch` sequences of up to `context` tokens."""
        weight = self.embedding.weight
        return [LayerCache(batch, self.config, weight.device, weight.dtype) for _ in self.blocks]
