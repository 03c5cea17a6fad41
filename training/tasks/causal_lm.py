"""Predicting the next token of documents, with a decoder."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from data.batches import Batch, Stream
from data.config import OrderConfig
from data.examples.table import is_examples
from data.mixture import packed
from data.split import Split
from models.families import AnyModelConfig
from seedbed.errors import ConfigError
from training.config import Config
from training.objectives import Objective, TensorBatch
from training.objectives.causal_lm import CausalLM
from training.objectives.distillation import Distillation
from training.tasks.base import Datasets, Task
from training.tasks.vocabulary import with_vocabulary


class CausalLMTask(Task):
    """Windows of tokens, as `[order]` fills them with documents."""

    settings: ClassVar[tuple[str, ...]] = (
        "num_chunks",
        "label_smoothing",
        "z_loss",
        "balance_loss",
        "router_z_loss",
    )

    def __init__(self, config: Config, datasets: Datasets) -> None:
        settings = config.objective
        if (settings.balance_loss or settings.router_z_loss) and not getattr(config.model, "num_experts", 0):
            raise ConfigError(
                "objective.balance_loss and objective.router_z_loss are losses of experts, and "
                f"this {config.model.family} has none",
                "leave them out, or set model.num_experts",
            )
        self.config = config
        self.reads_examples = any(map(is_examples, datasets.values()))
        self._token_bytes = next(iter(datasets.values())).tokenizer().byte_lengths()

    @classmethod
    def filled_in(cls, config: Config, datasets: Datasets) -> AnyModelConfig:
        return with_vocabulary(config.model, datasets)

    def objective(self, device: torch.device) -> Objective:
        settings = self.config.objective
        return CausalLM(
            num_chunks=settings.num_chunks,
            label_smoothing=settings.label_smoothing,
            z_loss=settings.z_loss,
            balance_loss=settings.balance_loss,
            router_z_loss=settings.router_z_loss,
        )

    def notices(self) -> list[str]:
        if self.reads_examples:
            return [
                f'objective.name = "{self.config.objective.name}" learns all the text of examples, '
                'prompts too; "sft" learns the answers alone'
            ]
        return []

    def stream(self, split: Split, order: OrderConfig) -> Stream[Batch]:
        if split.name == "holdout":
            order = order.model_copy(update={"packing": "concat"})
        return packed(split, order, self.config.model.context, self.config.run.seed)

    def tensors(self, batch: Batch) -> TensorBatch:
        apart = self.config.order.within_documents
        return TensorBatch(
            torch.from_numpy(batch.tokens),
            torch.from_numpy(batch.targets),
            torch.from_numpy(batch.weights),
            torch.from_numpy(batch.positions) if apart else None,
            torch.from_numpy(batch.documents) if apart else None,
        )

    def scored_bytes(self, batch: TensorBatch) -> float:
        lengths = self._token_bytes[batch.targets.cpu().numpy()]
        return float(np.sum(lengths * batch.weights.cpu().numpy()))


class DistillationTask(CausalLMTask):
    """The same samples, learned from the distributions of a teacher as well."""

    settings = ("num_chunks", "teacher", "temperature", "soft_share")

    def __init__(self, config: Config, datasets: Datasets) -> None:
        super().__init__(config, datasets)
        if not config.objective.teacher:
            raise ConfigError(
                "distillation needs a teacher", "set objective.teacher to a run or a checkpoint"
            )

    def objective(self, device: torch.device) -> Objective:
        from training.checkpoint.models import load_model

        settings = self.config.objective
        teacher = load_model(Path(settings.teacher)).decoder().to(device)
        return Distillation(
            teacher,
            temperature=settings.temperature,
            soft_share=settings.soft_share,
            num_chunks=settings.num_chunks,
        )
