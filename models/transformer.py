"""The decoder-only transformer, as a textbook would write it.

    x = embed(tokens) (+ positions)
    for each block:  x = x + attention(norm(x));  x = x + mlp(norm(x))
    logits = head(norm(x))

Nothing here knows about devices, sharding or precision. Parameter names are canonical: they
are what checkpoints, hashes and initialisation are keyed by.

Shapes: B batch, T time, D width, V vocabulary.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import Angles, Attention
from models.cache import Cache, CacheView, LayerView
from models.config import ModelConfig
from models.drop_path import drop_path, drop_rate
from models.experts import MixtureOfExperts
from models.latent_attention import LatentAttention
from models.lora import adapt
from models.masks import attention_mask
from models.mlp import make_mlp
from models.mup import output_multiplier
from models.norms import make_norm
from models.positions import rotary_angles, sinusoids
from models.routing import Routing


class Block(nn.Module):
    """One layer: attention, then MLP or experts, each added to the residual stream.

    The norm comes before each (Radford et al. 2019, GPT-2), or after each sum (Vaswani et al. 2017).
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.post_norm = config.norm_placement == "post"
        self.attention_norm = make_norm(config)
        self.attention = LatentAttention(config) if config.latent_width else Attention(config)
        self.mlp_norm = make_norm(config)
        self.mlp = MixtureOfExperts(config) if config.has_experts(layer) else make_mlp(config)
        self.dropout = nn.Dropout(config.dropout)
        self.drop_rate = drop_rate(config.drop_path, layer, config.num_layers)

    def forward(
        self,
        x_BTD: Tensor,
        angles: Angles | None = None,
        cache: LayerView | None = None,
        mask: Tensor | None = None,
        routing: Routing | None = None,
    ) -> Tensor:
        if self.post_norm:
            x_BTD = self.attention_norm(x_BTD + self._kept(self.attention(x_BTD, angles, cache, mask)))
            return self.mlp_norm(x_BTD + self._kept(self._mlp(x_BTD, routing)))
        x_BTD = x_BTD + self._kept(self.attention(self.attention_norm(x_BTD), angles, cache, mask))
        return x_BTD + self._kept(self._mlp(self.mlp_norm(x_BTD), routing))

    def _kept(self, branch_BTD: Tensor) -> Tensor:
        return drop_path(self.dropout(branch_BTD), self.drop_rate, self.training)

    def _mlp(self, x_BTD: Tensor, routing: Routing | None) -> Tensor:
        return self.mlp(x_BTD, routing) if isinstance(self.mlp, MixtureOfExperts) else self.mlp(x_BTD)


class Transformer(nn.Module):
    """Tokens [B, T] in, logits [B, T, V] out; position t sees tokens 0..t only.

    With `documents` [B, T], it sees those of its own document only; with `positions` [B, T], these count
    instead of 0..T-1. Neither goes with a cache, whose tokens
    [1, N] are those of several texts in a row. `routing` is filled with what routers of experts chose.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.positions = nn.Embedding(config.context, config.width) if config.positions == "learned" else None
        self.dropout = nn.Dropout(config.dropout)
        # A dictionary, not a list, so that names survive when layers are split over devices.
        self.blocks = nn.ModuleDict({str(i): Block(config, i) for i in range(config.num_layers)})
        self.norm = make_norm(config) if config.norm_placement == "pre" else None
        self.head = None if config.tie_embeddings else nn.Linear(config.width, config.vocab_size, bias=False)
        self.multiplier = output_multiplier(config)
        adapt(self)

    def forward(
        self,
        tokens_BT: Tensor,
        cache: CacheView | None = None,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
        routing: Routing | None = None,
    ) -> Tensor:
        return F.linear(self.hidden(tokens_BT, cache, positions, documents, routing), self.head_weight)

    def hidden(
        self,
        tokens_BT: Tensor,
        cache: CacheView | None = None,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
        routing: Routing | None = None,
    ) -> Tensor:
        """[B, T, D]: what the head turns into logits."""
        new, device = tokens_BT.shape[1], tokens_BT.device
        if cache is not None:
            positions = cache.positions_1N
        elif positions is None:
            positions = torch.arange(new, device=device)
        x_BTD = self.dropout(self._embed(tokens_BT, positions))
        angles = rotary_angles(positions, self.config) if self.config.positions == "rope" else None
        # A cache masks by itself: it knows which texts the tokens belong to.
        mask = attention_mask(self.config, 0, new, device, documents) if cache is None else None
        for index, block in enumerate(self.blocks.values()):
            x_BTD = block(x_BTD, angles, cache.layers[index] if cache else None, mask, routing)
        if self.norm is not None:
            x_BTD = self.norm(x_BTD)
        return x_BTD * self.multiplier if self.multiplier != 1 else x_BTD

    def _embed(self, tokens_BT: Tensor, positions: Tensor) -> Tensor:
        x_BTD = self.embedding(tokens_BT)
        if self.positions is not None:
            return x_BTD + self.positions(positions)
        if self.config.positions == "sinusoidal":
            # Vaswani et al. 2017, section 3.4: the scale at which tokens are not drowned by positions.
            D = self.config.width
            return x_BTD * math.sqrt(D) + sinusoids(positions, D).to(x_BTD.dtype)
        return x_BTD

    @property
    def head_weight(self) -> Tensor:
        """[V, D]: of the head, or of the embedding that it shares."""
        return self.embedding.weight if self.head is None else self.head.weight

    def new_cache(self, num_slots: int) -> Cache:
        """An empty cache for `num_slots` texts: `model(tokens_1N, cache.extend(slots, counts))`."""
        weight = self.embedding.weight
        return Cache(self.config, num_slots, weight.device, weight.dtype)
