"""Next-token prediction."""

import torch.nn.functional as F
from torch import nn

from training.objectives import LossSum, TensorBatch


class CausalLM:
    """Cross-entropy of each token given those before it: -sum_t w_t log p(x_{t+1} | x_{<=t})."""

    def loss(self, model: nn.Module, batch: TensorBatch) -> LossSum:
        logits_BTV = model(batch.tokens, positions=batch.positions, documents=batch.documents)
        losses = F.cross_entropy(logits_BTV.flatten(0, 1).float(), batch.targets.flatten(), reduction="none")
        weights = batch.weights.flatten()
        return LossSum((losses * weights).sum(), weights.sum())
