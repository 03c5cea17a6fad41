"""Learning from a teacher's distributions as well as from the text (Hinton et al. 2015, arXiv:1503.02531).

    (1 - a) (-log p_y)  +  a tau^2 KL(p_teacher,tau || p_student,tau),    p_tau = softmax(z / tau)

Gradients of the second term shrink as 1/tau^2, hence the factor: `a` keeps its meaning at any temperature.

Shapes: B batch, T time, D width, V vocabulary, N tokens of a chunk.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.transformer import Transformer
from seedbed.errors import ConfigError
from training.objectives import LossSum, TensorBatch
from training.objectives.causal_lm import CausalLM
from training.objectives.chunks import sum_over_chunks
from training.objectives.cross_entropy import cross_entropy


def soft_cross_entropy(
    logits: Tensor, teacher_logits: Tensor, weights: Tensor, *, temperature: float
) -> LossSum:
    """tau^2 KL(teacher || student), weighted and summed, of logits [..., V] and weights [...]; in float32."""
    log_student = F.log_softmax(logits.float() / temperature, dim=-1)
    log_teacher = F.log_softmax(teacher_logits.float() / temperature, dim=-1)
    divergence = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(dim=-1)
    return LossSum(temperature**2 * (divergence * weights).sum(), weights.sum())


class Distillation:
    """A causal language model that learns from `teacher`, which is frozen and put in eval mode.

    Both must share a tokenizer and have as many logits; ConfigError when they have not. A student in eval
    mode is given the plain cross-entropy of the text, which compares with that of any other run. The logits
    of both are computed in `num_chunks` parts, and none are held whole when there are several.
    """

    losses = ("loss",)

    def __init__(
        self, teacher: Transformer, *, temperature: float = 2.0, soft_share: float = 0.5, num_chunks: int = 1
    ) -> None:
        self.teacher = teacher.eval().requires_grad_(False)
        self.temperature, self.soft_share, self.num_chunks = temperature, soft_share, num_chunks
        self.text = CausalLM(num_chunks)

    def scores(self, model: nn.Module, batch: TensorBatch) -> dict[str, LossSum]:
        return {"loss": self.text.loss(model, batch)}

    def loss(self, model: nn.Module, batch: TensorBatch) -> LossSum:
        if not model.training:
            return self.text.loss(model, batch)
        student = cast(Transformer, model)
        self._check_vocabularies(student)
        inputs: dict[str, Any] = {"positions": batch.positions, "documents": batch.documents}
        hidden_BTD = student.hidden(batch.tokens, **inputs)
        with torch.no_grad():
            teacher_BTD = self.teacher.hidden(batch.tokens, **inputs)
        rows = (teacher_BTD.flatten(0, 1), batch.targets.flatten(), batch.weights.flatten())
        total = sum_over_chunks(
            self._chunk, hidden_BTD.flatten(0, 1), student.head_weight, None, rows, num_chunks=self.num_chunks
        )
        return LossSum(total, batch.weights.sum())

    def _chunk(self, logits_NV: Tensor, teacher_ND: Tensor, targets_N: Tensor, weights_N: Tensor) -> Tensor:
        with torch.no_grad():
            teacher_NV = F.linear(teacher_ND, self.teacher.head_weight)
        hard = cross_entropy(logits_NV, targets_N, weights_N).total
        soft = soft_cross_entropy(logits_NV, teacher_NV, weights_N, temperature=self.temperature).total
        return (1 - self.soft_share) * hard + self.soft_share * soft

    def _check_vocabularies(self, student: Transformer) -> None:
        ours, theirs = student.config.vocab_size, self.teacher.config.vocab_size
        if ours != theirs:
            raise ConfigError(
                f"the student has {ours} logits and its teacher {theirs}",
                "give both the same tokenizer and the same model.vocab_size",
            )
