"""The encoder, as a textbook would write it (Devlin et al. 2018, "BERT").

    x = norm(token + segment + position)          (ALBERT: then projected from E to D)
    for each layer:  x = norm(x + attention(x));  x = norm(x + mlp(x))

Every token sees every valid token. The norm comes after the sum (post-norm), so that the last hidden states
are normalised already. Layers that share parameters (Lan et al. 2019, "ALBERT") go through one block again.

Shapes: B batch, T time, D width, E embedding width, H heads, K head size.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.bert.config import EncoderConfig
from models.drop_path import drop_path, drop_rate
from seedbed.errors import UsageError

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "tanh": torch.tanh,
}


class SelfAttention(nn.Module):
    """softmax(Q K^T / sqrt(K)) V over all valid tokens (Vaswani et al. 2017)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.head_size, self.dropout = config.head_size, config.attention_dropout
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(config.width, config.width)
        self.value = nn.Linear(config.width, config.width)
        self.output = nn.Linear(config.width, config.width)

    def forward(self, x_BTD: Tensor, mask_B11T: Tensor | None = None) -> Tensor:
        def heads(linear: nn.Linear) -> Tensor:
            return linear(x_BTD).unflatten(-1, (-1, self.head_size)).transpose(1, 2)

        mixed_BHTK = F.scaled_dot_product_attention(
            heads(self.query),
            heads(self.key),
            heads(self.value),
            attn_mask=mask_B11T,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.output(mixed_BHTK.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """W_2 f(W_1 x)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.up = nn.Linear(config.width, config.hidden_width)
        self.down = nn.Linear(config.hidden_width, config.width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down(self.activation(self.up(x_BTD)))


class Block(nn.Module):
    """One post-norm layer: attention, then MLP, each added to its input and normalised."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.attention_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = MLP(config)
        self.mlp_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTD: Tensor, mask_B11T: Tensor | None = None, rate: float = 0.0) -> Tensor:
        """`rate` is that of stochastic depth: layers that share a block have each their own."""
        attended = self.dropout(self.attention(x_BTD, mask_B11T))
        x_BTD = self.attention_norm(x_BTD + drop_path(attended, rate, self.training))
        return self.mlp_norm(x_BTD + drop_path(self.dropout(self.mlp(x_BTD)), rate, self.training))


class Encoder(nn.Module):
    """Tokens [B, T] in, hidden states [B, T, D] out."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        E = config.embedding_size
        self.embedding = nn.Embedding(config.vocab_size, E)
        self.positions = nn.Embedding(config.context + config.position_offset, E)
        self.segments = nn.Embedding(config.num_segments, E) if config.num_segments else None
        self.embedding_norm = nn.LayerNorm(E, eps=config.norm_eps)
        self.embedding_up = nn.Linear(E, config.width) if config.embedding_width else None
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleDict({str(i): Block(config) for i in range(config.num_blocks)})
        self.pooler = nn.Linear(config.width, config.width) if config.pooler != "none" else None

    def forward(
        self, tokens_BT: Tensor, segments_BT: Tensor | None = None, valid_BT: Tensor | None = None
    ) -> Tensor:
        """Last hidden states [B, T, D]; `valid_BT` is False on padding, which no token sees.

        Without segments, all tokens are of the first. UsageError for a sequence longer than the context.
        """
        return self.hidden(tokens_BT, segments_BT, valid_BT)

    def hidden(
        self, tokens_BT: Tensor, segments_BT: Tensor | None = None, valid_BT: Tensor | None = None
    ) -> Tensor:
        """What `forward` returns when there is no head: last hidden states [B, T, D]."""
        mask_B11T = None if valid_BT is None else valid_BT.bool()[:, None, None, :]
        x_BTD = self._embed(tokens_BT, segments_BT, valid_BT)
        blocks = list(self.blocks.values())
        layers_per_block = self.config.num_layers // len(blocks)
        for layer in range(self.config.num_layers):
            rate = drop_rate(self.config.drop_path, layer, self.config.num_layers)
            x_BTD = blocks[layer // layers_per_block](x_BTD, mask_B11T, rate)
        return x_BTD

    def pool(self, hidden_BTD: Tensor) -> Tensor:
        """f(W h_1 + b), [B, D]: the first token's state, made to stand for the whole sequence."""
        if self.pooler is None:
            raise UsageError("this encoder has no pooler", 'set model.pooler to "tanh"')
        return ACTIVATIONS[self.config.pooler](self.pooler(hidden_BTD[:, 0]))

    def _embed(self, tokens_BT: Tensor, segments_BT: Tensor | None, valid_BT: Tensor | None) -> Tensor:
        if segments_BT is None:
            segments_BT = torch.zeros_like(tokens_BT)
        x_BTE = self.embedding(tokens_BT) + self.positions(self._rows(tokens_BT, valid_BT))
        if self.segments is not None:
            x_BTE = x_BTE + self.segments(segments_BT)
        x_BTE = self.dropout(self.embedding_norm(x_BTE))
        return x_BTE if self.embedding_up is None else self.embedding_up(x_BTE)

    def _rows(self, tokens_BT: Tensor, valid_BT: Tensor | None) -> Tensor:
        """Row of the position table for each token: [T], or [B, T] where padding does not count."""
        T, offset = tokens_BT.shape[1], self.config.position_offset
        if self.config.context < T:
            raise UsageError(
                f"a sequence of {T} tokens, and model.context is {self.config.context}", "cut the sequences"
            )
        if offset and valid_BT is not None:
            return valid_BT.long().cumsum(1) * valid_BT + offset - 1
        return torch.arange(offset, offset + T, device=tokens_BT.device)
