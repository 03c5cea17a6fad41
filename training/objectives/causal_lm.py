"""Next-token prediction."""

from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from models.routing import Routing
from models.transformer import Transformer
from training.objectives import LossSum, TensorBatch
from training.objectives.cross_entropy import chunked_cross_entropy, cross_entropy


@dataclass(frozen=True)
class CausalLM:
    """Cross-entropy of each token given those before it: -sum_t w_t log p(x_{t+1} | x_{<=t}).

    All other terms belong to training, as dropout does: a model in eval mode is given the plain
    cross-entropy, so that validation losses of all runs mean the same.
    """

    losses = ("loss",)
    num_chunks: int = 1
    """Parts in which logits are computed; 1 computes them all at once, by the model's own forward."""
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    """Coefficient of log^2 Z of the logits; 1e-4 in PaLM."""
    balance_loss: float = 0.0
    """Coefficient of the experts' balance loss, each sequence's weighted like its tokens; 0.01 in Switch."""
    router_z_loss: float = 0.0
    """Coefficient of log^2 Z of the routers' logits, likewise; 1e-3 in ST-MoE."""

    def scores(self, model: nn.Module, batch: TensorBatch) -> dict[str, LossSum]:
        return {"loss": self.loss(model, batch)}

    def loss(self, model: nn.Module, batch: TensorBatch) -> LossSum:
        inputs: dict[str, Any] = {"positions": batch.positions, "documents": batch.documents}
        extra: dict[str, Any] = {}
        routing = None
        if model.training:
            extra = {"label_smoothing": self.label_smoothing, "z_loss": self.z_loss}
            if self.balance_loss or self.router_z_loss:
                routing = inputs["routing"] = Routing()
        if self.num_chunks == 1:
            text = cross_entropy(model(batch.tokens, **inputs), batch.targets, batch.weights, **extra)
        else:
            decoder = cast(Transformer, model)
            text = chunked_cross_entropy(
                decoder.hidden(batch.tokens, **inputs),
                decoder.head_weight,
                batch.targets,
                batch.weights,
                num_chunks=self.num_chunks,
                **extra,
            )
        if routing is None:
            return text
        balance_B, z_B = routing.balance_loss_B(batch.weights), routing.z_loss_B(batch.weights)
        routers_B = self.balance_loss * balance_B + self.router_z_loss * z_B
        return LossSum(text.total + (routers_B * batch.weights.sum(1)).sum(), text.weight)
