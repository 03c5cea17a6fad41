"""An encoder with a head: what it is pretrained with, and what it is fine-tuned for.

Each is an encoder whose `forward` ends in a head, so that all share the encoder's parameter names: a
pretrained checkpoint fills a classifier but for the classifier itself. The configuration names the head.

Shapes: B batch, T time, D width, E embedding width, V vocabulary, C choices, L labels.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.bert.config import EncoderConfig
from models.bert.encoder import ACTIVATIONS, Encoder


class MaskedLMHead(nn.Module):
    """norm(f(W h)) E^T + b: which token is at each position, with the embedding as output matrix."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.dense = nn.Linear(config.width, config.embedding_size)
        self.norm = nn.LayerNorm(config.embedding_size, eps=config.norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden_BTD: Tensor, embedding_VE: Tensor) -> Tensor:
        return F.linear(self.norm(self.activation(self.dense(hidden_BTD))), embedding_VE, self.bias)


class MaskedLM(Encoder):
    """Logits [B, T, V] of the token at each position."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.masked_lm = MaskedLMHead(config)

    def forward(
        self,
        tokens_BT: Tensor,
        segments_BT: Tensor | None = None,
        valid_BT: Tensor | None = None,
        selected_BT: Tensor | None = None,
    ) -> Tensor:
        """With `selected_BT`, logits [N, V] of the N positions where it is True alone: the masked ones."""
        hidden = self.hidden(tokens_BT, segments_BT, valid_BT)
        if selected_BT is not None:
            hidden = hidden[selected_BT]
        return self.masked_lm(hidden, self.embedding.weight)


class PretrainingLogits(NamedTuple):
    """Logits of the two tasks that BERT is pretrained with."""

    tokens: Tensor
    """[B, T, V], or [N, V] for selected positions: the token at each."""
    pair: Tensor
    """[B, 2]: column 0 says that the two texts are in order, column 1 that they are not."""


class Pretraining(MaskedLM):
    """Masked LM, and next-sentence prediction (BERT) or sentence order (ALBERT) from the pooled state."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.pair = nn.Linear(config.width, 2)

    def forward(  # type: ignore[override]
        self,
        tokens_BT: Tensor,
        segments_BT: Tensor | None = None,
        valid_BT: Tensor | None = None,
        selected_BT: Tensor | None = None,
    ) -> PretrainingLogits:
        """Both tasks' logits; `selected_BT` as for MaskedLM."""
        hidden = self.hidden(tokens_BT, segments_BT, valid_BT)
        chosen = hidden if selected_BT is None else hidden[selected_BT]
        return PretrainingLogits(self.masked_lm(chosen, self.embedding.weight), self.pair(self.pool(hidden)))


class Classifying(Encoder):
    """An encoder with one linear layer, `classifier`, behind dropout."""

    def __init__(self, config: EncoderConfig, num_labels: int) -> None:
        super().__init__(config)
        self.head_dropout = nn.Dropout(config.head_dropout)
        self.classifier = nn.Linear(config.width, num_labels)


class SequenceClassifier(Classifying):
    """Logits [B, L] of a whole sequence, from its pooled state."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config, config.num_labels)

    def forward(
        self, tokens_BT: Tensor, segments_BT: Tensor | None = None, valid_BT: Tensor | None = None
    ) -> Tensor:
        pooled_BD = self.pool(self.hidden(tokens_BT, segments_BT, valid_BT))
        return self.classifier(self.head_dropout(pooled_BD))


class TokenClassifier(Classifying):
    """Logits [B, T, L] of every token."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config, config.num_labels)

    def forward(
        self, tokens_BT: Tensor, segments_BT: Tensor | None = None, valid_BT: Tensor | None = None
    ) -> Tensor:
        return self.classifier(self.head_dropout(self.hidden(tokens_BT, segments_BT, valid_BT)))


class SpanLogits(NamedTuple):
    """Logits [B, T] of where the answer begins and where it ends, over the positions."""

    start: Tensor
    end: Tensor


class SpanFinder(Encoder):
    """Where in the text the answer stands: a start and an end, each a choice among the positions."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.span = nn.Linear(config.width, 2)

    def forward(  # type: ignore[override]
        self, tokens_BT: Tensor, segments_BT: Tensor | None = None, valid_BT: Tensor | None = None
    ) -> SpanLogits:
        """Padding is not excluded: the loss of a labelled span does without, and a search knows its text."""
        return SpanLogits(*self.span(self.hidden(tokens_BT, segments_BT, valid_BT)).unbind(-1))


class MultipleChoice(Classifying):
    """Logits [B, C] over choices: each is a sequence of its own, [B, C, T], scored from its pooled state."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config, 1)

    def forward(
        self, tokens_BCT: Tensor, segments_BCT: Tensor | None = None, valid_BCT: Tensor | None = None
    ) -> Tensor:
        rows = [None if x is None else x.flatten(0, 1) for x in (segments_BCT, valid_BCT)]
        pooled = self.pool(self.hidden(tokens_BCT.flatten(0, 1), *rows))
        return self.classifier(self.head_dropout(pooled)).view(tokens_BCT.shape[:2])


class Reward(Classifying):
    """One number per sequence, [B], from its pooled state."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config, 1)

    def forward(
        self, tokens_BT: Tensor, segments_BT: Tensor | None = None, valid_BT: Tensor | None = None
    ) -> Tensor:
        pooled_BD = self.pool(self.hidden(tokens_BT, segments_BT, valid_BT))
        return self.classifier(self.head_dropout(pooled_BD)).squeeze(-1)


TASKS: dict[str, type[Encoder]] = {
    "none": Encoder,
    "masked_lm": MaskedLM,
    "pretraining": Pretraining,
    "sequence_classification": SequenceClassifier,
    "token_classification": TokenClassifier,
    "span": SpanFinder,
    "multiple_choice": MultipleChoice,
    "reward": Reward,
}


def make_encoder(config: EncoderConfig) -> Encoder:
    """The encoder with the head that the configuration names."""
    return TASKS[config.head](config)
