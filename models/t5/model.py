"""The encoder-decoder, as a textbook would write it (Raffel et al. 2020, "T5").

    encoder:  for each block:  x += attention(norm(x));  x += mlp(norm(x))
    decoder:  for each block:  x += attention(norm(x));  x += attention(norm(x), memory);  x += mlp(norm(x))
    logits = head(norm(x))

The memory is what the encoder made of the source. Scores are not divided by sqrt(K): the initial weights are,
once. Positions are known by the bias that a stack adds to the scores of self-attention in all its blocks.

Shapes: B batch, S source time, T target time, D width, H heads, K head size, V vocabulary; Q queries, M keys.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.t5.config import T5Config
from models.t5.positions import RelativeBias

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of some sequence, [B, H, M, K] each."""


class LayerCache:
    """What decoding remembers of one block: keys and values of the targets so far, and of the memory."""

    def __init__(self) -> None:
        self.own: KeysValues | None = None
        self.memory: KeysValues | None = None

    @property
    def length(self) -> int:
        """Target tokens so far."""
        return 0 if self.own is None else self.own[0].shape[2]

    def extend(self, new: KeysValues) -> KeysValues:
        """Append the new positions; returns all keys and values so far."""
        if self.own is not None:
            new = (torch.cat((self.own[0], new[0]), 2), torch.cat((self.own[1], new[1]), 2))
        self.own = new
        return new


class Attention(nn.Module):
    """softmax(Q K^T + bias) V, of one sequence over itself or over another, and unscaled."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.head_size, self.dropout = config.head_size, config.dropout
        self.query = nn.Linear(config.width, config.attention_width, bias=False)
        self.key = nn.Linear(config.width, config.attention_width, bias=False)
        self.value = nn.Linear(config.width, config.attention_width, bias=False)
        self.output = nn.Linear(config.attention_width, config.width, bias=False)

    def keys_values(self, x_BMD: Tensor) -> KeysValues:
        """Of the sequence that is attended to."""
        return self._heads(self.key(x_BMD)), self._heads(self.value(x_BMD))

    def forward(self, x_BQD: Tensor, keys_values: KeysValues, bias_BHQM: Tensor | None) -> Tensor:
        query_BHQK = self._heads(self.query(x_BQD))
        dropout = self.dropout if self.training else 0.0
        mixed_BHQK = F.scaled_dot_product_attention(
            query_BHQK, *keys_values, attn_mask=bias_BHQM, dropout_p=dropout, scale=1.0
        )
        return self.output(mixed_BHQK.transpose(1, 2).flatten(2))

    def _heads(self, x_BMA: Tensor) -> Tensor:
        return x_BMA.unflatten(-1, (-1, self.head_size)).transpose(1, 2)


class MLP(nn.Module):
    """W_2 relu(W_1 x), or W_2 (gelu(W_g x) * W_1 x) (Shazeer 2020, "GLU variants improve transformer")."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        gated = config.mlp == "gated_gelu"
        self.gate = nn.Linear(config.width, config.hidden_width, bias=False) if gated else None
        self.up = nn.Linear(config.width, config.hidden_width, bias=False)
        self.down = nn.Linear(config.hidden_width, config.width, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        if self.gate is None:
            hidden = F.relu(self.up(x_BTD))
        else:
            hidden = F.gelu(self.gate(x_BTD), approximate="tanh") * self.up(x_BTD)
        return self.down(self.dropout(hidden))


class Block(nn.Module):
    """One pre-norm layer of the encoder."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.attention = Attention(config)
        self.mlp_norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTD: Tensor, bias_BHTT: Tensor) -> Tensor:
        normed = self.attention_norm(x_BTD)
        keys_values = self.attention.keys_values(normed)
        x_BTD = x_BTD + self.dropout(self.attention(normed, keys_values, bias_BHTT))
        return x_BTD + self.dropout(self.mlp(self.mlp_norm(x_BTD)))


class DecoderBlock(Block):
    """One pre-norm layer of the decoder: between its own attention and the MLP, it reads the memory."""

    def __init__(self, config: T5Config) -> None:
        super().__init__(config)
        self.cross_norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.cross = Attention(config)

    def forward(  # type: ignore[override]
        self,
        x_BTD: Tensor,
        bias_BHTM: Tensor,
        memory_BSD: Tensor,
        mask_B11S: Tensor | None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        normed = self.attention_norm(x_BTD)
        own = self.attention.keys_values(normed)
        if cache is not None:
            own = cache.extend(own)
        x_BTD = x_BTD + self.dropout(self.attention(normed, own, bias_BHTM))
        memory = cache.memory if cache is not None else None
        if memory is None:
            memory = self.cross.keys_values(memory_BSD)
        if cache is not None:
            cache.memory = memory
        x_BTD = x_BTD + self.dropout(self.cross(self.cross_norm(x_BTD), memory, mask_B11S))
        return x_BTD + self.dropout(self.mlp(self.mlp_norm(x_BTD)))


class Encoder(nn.Module):
    """Embedded sources [B, S, D] in, the memory [B, S, D] out; nothing sees padding."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.relative_bias = RelativeBias(config, two_sided=True)
        self.blocks = nn.ModuleDict({str(i): Block(config) for i in range(config.num_layers)})
        self.norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BSD: Tensor, valid_BS: Tensor | None) -> Tensor:
        positions = torch.arange(x_BSD.shape[1], device=x_BSD.device)
        bias = self.relative_bias(positions, positions)
        if valid_BS is not None:
            bias = bias.masked_fill(~valid_BS.bool()[:, None, None, :], -math.inf)
        x_BSD = self.dropout(x_BSD)
        for block in self.blocks.values():
            x_BSD = block(x_BSD, bias)
        return self.dropout(self.norm(x_BSD))


class Decoder(nn.Module):
    """Embedded targets [B, T, D] and the memory in, states [B, T, D] out; position t sees targets 0..t."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.relative_bias = RelativeBias(config, two_sided=False)
        self.blocks = nn.ModuleDict({str(i): DecoderBlock(config) for i in range(config.decoder_layers)})
        self.norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x_BTD: Tensor,
        memory_BSD: Tensor,
        valid_BS: Tensor | None,
        cache: list[LayerCache] | None = None,
    ) -> Tensor:
        past = cache[0].length if cache else 0
        keys = torch.arange(past + x_BTD.shape[1], device=x_BTD.device)
        queries = keys[past:]
        bias = self.relative_bias(queries, keys).masked_fill(keys[None, :] > queries[:, None], -math.inf)
        mask_B11S = None if valid_BS is None else valid_BS.bool()[:, None, None, :]
        x_BTD = self.dropout(x_BTD)
        for index, block in enumerate(self.blocks.values()):
            x_BTD = block(x_BTD, bias, memory_BSD, mask_B11S, cache[index] if cache else None)
        return self.dropout(self.norm(x_BTD))


class T5(nn.Module):
    """Sources [B, S] and the targets so far [B, T] in, logits [B, T, V] of the next target tokens out."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.head = None if config.tie_embeddings else nn.Linear(config.width, config.vocab_size, bias=False)

    @property
    def blocks(self) -> dict[str, nn.Module]:
        """The blocks of the encoder and of the decoder, by the beginning of their parameters' names."""
        encoder = {f"encoder.blocks.{i}": block for i, block in self.encoder.blocks.items()}
        return encoder | {f"decoder.blocks.{i}": block for i, block in self.decoder.blocks.items()}

    def forward(self, sources_BS: Tensor, targets_BT: Tensor, valid_BS: Tensor | None = None) -> Tensor:
        """Targets are shifted already (see `shift_right`); `valid_BS` is False on the sources' padding.

        Padding after the targets changes nothing before it, and needs no mask.
        """
        return self.decode(targets_BT, self.encode(sources_BS, valid_BS), valid_BS)

    def encode(self, sources_BS: Tensor, valid_BS: Tensor | None = None) -> Tensor:
        """The memory [B, S, D]."""
        return self.encoder(self.embedding(sources_BS), valid_BS)

    def decode(
        self,
        targets_BT: Tensor,
        memory_BSD: Tensor,
        valid_BS: Tensor | None = None,
        cache: list[LayerCache] | None = None,
    ) -> Tensor:
        """Logits [B, T, V]; with a cache, the targets are those that follow what it holds."""
        return F.linear(self.hidden(targets_BT, memory_BSD, valid_BS, cache), self.head_weight)

    def hidden(
        self,
        targets_BT: Tensor,
        memory_BSD: Tensor,
        valid_BS: Tensor | None = None,
        cache: list[LayerCache] | None = None,
    ) -> Tensor:
        """[B, T, D]: what the head turns into logits."""
        x_BTD = self.decoder(self.embedding(targets_BT), memory_BSD, valid_BS, cache)
        return x_BTD * self.config.width**-0.5 if self.config.scale_logits else x_BTD

    @property
    def head_weight(self) -> Tensor:
        """[V, D]: of the head, or of the embedding that it shares."""
        return self.embedding.weight if self.head is None else self.head.weight

    def new_cache(self) -> list[LayerCache]:
        """An empty cache, for decoding from one memory."""
        return [LayerCache() for _ in self.decoder.blocks]


def shift_right(labels_BT: Tensor, start_id: int) -> Tensor:
    """The decoder's input [B, T] for these labels: `start_id`, then all of them but the last."""
    return F.pad(labels_BT[:, :-1], (1, 0), value=start_id)
