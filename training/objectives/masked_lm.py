"""What BERT learns from: hidden pieces, and whether two texts belong together (Devlin et al. 2018).

    sum_{masked t} -log p(x_t | the rest) / masked pieces  +  sum_pairs -log p(in order | both) / pairs

The second part is next-sentence prediction when the wrong B comes from another document, and sentence-order
prediction (Lan et al. 2019, ALBERT) when it is A that follows; the data decide. The two means have different
denominators, and which one a micro-batch contributes to each is known from its data alone: a step sums
`part_weights` over all its micro-batches and ranks first, and gives the sums with every one of them.

Shapes: B pairs, T pieces, V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from training.objectives import LossSum, combine
from training.objectives.cross_entropy import cross_entropy

MASKED, PAIRS = "masked_lm", "pairs"


class MaskedBatch(NamedTuple):
    """A micro-batch on a device; `step_weights` are the summed `part_weights` of its whole step.

    Without them, this batch is a step of its own. A rank's turn without work has weights of zero in both.
    """

    tokens: Tensor
    """[B, T] int64, masked and padded."""
    segments: Tensor
    """[B, T] int64."""
    valid: Tensor
    """[B, T] bool: not padding."""
    labels: Tensor
    """[B, T] int64: the piece that was there."""
    weights: Tensor
    """[B, T] float32: 0 where nothing is to be predicted."""
    in_order: Tensor
    """[B] int64: 1 when B follows A, 0 when not."""
    pair_weights: Tensor
    """[B] float32."""
    step_weights: Mapping[str, float] | None = None

    def part_weights(self) -> dict[str, Tensor]:
        """What this micro-batch adds to the denominator of each part."""
        return {MASKED: self.weights.sum(), PAIRS: self.pair_weights.sum()}


@dataclass(frozen=True)
class MaskedLM:
    """Masked LM, plus the judgement of pairs for a model that has a head for it.

    `loss` is in units of masked pieces; `parts` keeps the two sums apart, for validation and reports.
    """

    losses = (MASKED, PAIRS)
    label_smoothing: float = 0.0
    z_loss: float = 0.0

    def scores(self, model: nn.Module, batch: MaskedBatch) -> dict[str, LossSum]:
        return self.parts(model, batch)

    def loss(self, model: nn.Module, batch: MaskedBatch) -> LossSum:
        step_weights = batch.step_weights
        if step_weights is None:
            step_weights = {name: weight.item() for name, weight in batch.part_weights().items()}
        return combine(self.parts(model, batch), step_weights)

    def parts(self, model: nn.Module, batch: MaskedBatch) -> dict[str, LossSum]:
        """Each part's own sum and weight. Logits are computed only of pieces to be predicted."""
        smoothing, z_loss = (self.label_smoothing, self.z_loss) if model.training else (0.0, 0.0)
        selected_BT = batch.weights != 0
        logits = model(batch.tokens, batch.segments, batch.valid, selected_BT)
        masked_NV = logits if isinstance(logits, Tensor) else logits.tokens
        parts = {
            MASKED: cross_entropy(
                masked_NV,
                batch.labels[selected_BT],
                batch.weights[selected_BT],
                label_smoothing=smoothing,
                z_loss=z_loss,
            )
        }
        if not isinstance(logits, Tensor):
            # Column 0 says "in order", as in the checkpoints that BERT and ALBERT were published as.
            parts[PAIRS] = cross_entropy(logits.pair, 1 - batch.in_order, batch.pair_weights)
        return parts
