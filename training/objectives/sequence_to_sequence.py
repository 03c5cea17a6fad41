"""Writing a target given a source: span corruption, translation, summaries (Raffel et al. 2020, T5).

Shapes: B batch, T source tokens, U target tokens, V vocabulary.
"""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from training.objectives import LossSum
from training.objectives.cross_entropy import cross_entropy


class SequenceToSequenceBatch(NamedTuple):
    """A micro-batch on a device: what the encoder reads, what the decoder has to write."""

    tokens: Tensor
    """[B, T] int64."""
    valid: Tensor
    """[B, T] bool: not padding."""
    targets: Tensor
    """[B, U] int64."""
    weights: Tensor
    """[B, U] float32: 0 on padding."""


@dataclass(frozen=True)
class SequenceToSequence:
    """Cross-entropy of each target token given source and those before: -sum_u w_u log p(y_u | y_{<u}, x).

    Label smoothing and z-loss belong to training; a model in eval mode is given the plain cross-entropy.
    """

    losses = ("loss",)
    start_id: int
    """What the decoder is given to begin with; T5 takes its padding token."""
    label_smoothing: float = 0.0
    z_loss: float = 0.0

    def scores(self, model: nn.Module, batch: SequenceToSequenceBatch) -> dict[str, LossSum]:
        return {"loss": self.loss(model, batch)}

    def loss(self, model: nn.Module, batch: SequenceToSequenceBatch) -> LossSum:
        smoothing, z_loss = (self.label_smoothing, self.z_loss) if model.training else (0.0, 0.0)
        logits_BUV = model(batch.tokens, self.decoder_inputs(batch.targets), batch.valid)
        return cross_entropy(
            logits_BUV, batch.targets, batch.weights, label_smoothing=smoothing, z_loss=z_loss
        )

    def decoder_inputs(self, targets_BU: Tensor) -> Tensor:
        """[B, U]: the targets one place later, behind `start_id`."""
        shifted_BU = targets_BU.roll(1, dims=1)
        shifted_BU[:, 0] = self.start_id
        return shifted_BU
