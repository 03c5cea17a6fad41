"""Choosing the label of a document, with an encoder that has a head for it."""

import json

import torch

from data.batches import Stream
from data.bert_masking import Vocabulary
from data.config import OrderConfig
from data.labelled import LabelledBatch, LabelledStream, count_labels
from data.shards import SPLITS
from data.split import Split
from models.bert.config import EncoderConfig
from models.families import AnyModelConfig
from seedbed.errors import ConfigError
from training.checkpoint.layout import LABELS
from training.config import Config
from training.objectives import Objective
from training.objectives.classification import Classification, ClassificationBatch
from training.tasks.base import Datasets, Task
from training.tasks.vocabulary import first, with_padding, with_vocabulary


class ClassificationTask(Task):
    """Documents that have a label with at least `objective.min_documents_per_label` of them."""

    settings = ("label_smoothing", "min_documents_per_label")

    def __init__(self, config: Config, datasets: Datasets) -> None:
        self.config = config
        self._words = Vocabulary.of(first(datasets).tokenizer())
        self.labels = labels_of(config, datasets)
        self._splits = [dataset.split(name) for dataset in datasets.values() for name in SPLITS]

    @classmethod
    def filled_in(cls, config: Config, datasets: Datasets) -> AnyModelConfig:
        assert isinstance(config.model, EncoderConfig)
        labels, given = labels_of(config, datasets), config.model.num_labels
        if given and given != len(labels):
            raise ConfigError(
                f"model.num_labels = {given}, but the data have {len(labels)} labels: "
                + ", ".join(labels[:20]),
                "leave model.num_labels at 0 (those of the data)",
            )
        words = Vocabulary.of(first(datasets).tokenizer())
        model = config.model.model_copy(update={"num_labels": len(labels)})
        return with_vocabulary(with_padding(model, words), datasets)

    def objective(self, device: torch.device) -> Objective:
        return Classification(self.config.objective.label_smoothing)

    def stream(self, split: Split, order: OrderConfig) -> Stream[LabelledBatch]:
        is_training = split.name == "train"
        return LabelledStream(
            split,
            self.labels,
            self._words,
            self.config.model.context,
            self.config.run.seed,
            crop_at_random=is_training,
        )

    def tensors(self, batch: LabelledBatch) -> ClassificationBatch:
        return ClassificationBatch(
            torch.from_numpy(batch.tokens),
            torch.from_numpy(batch.valid),
            torch.from_numpy(batch.labels),
            torch.from_numpy(batch.weights),
        )

    def notices(self) -> list[str]:
        num_documents = sum(split.num_documents for split in self._splits)
        counts = count_labels(self._splits)
        num_used = sum(counts[label] for label in self.labels)
        told = [f"{num_used:,} of {num_documents:,} documents have one of {len(self.labels)} labels"]
        if num_used < num_documents:
            told[0] += (
                f"; {num_documents - counts.total():,} without a label and {counts.total() - num_used:,} "
                "with a rare one are left out"
            )
        return told

    def attachments(self) -> dict[str, bytes]:
        return {LABELS: json.dumps(self.labels).encode()}


def labels_of(config: Config, datasets: Datasets) -> tuple[str, ...]:
    """The labels to tell apart, sorted; ConfigError when there are fewer than two."""
    counts = count_labels(dataset.split("train") for dataset in datasets.values())
    least = config.objective.min_documents_per_label
    labels = tuple(sorted(label for label, count in counts.items() if count >= least))
    if len(labels) < 2:
        field = f"data.label_field = {config.data.label_field!r}"
        raise ConfigError(
            f"the training documents have {len(counts)} labels, {len(labels)} of them on at least "
            f"objective.min_documents_per_label = {least} documents: there is nothing to tell apart",
            f"set data.label_field to the field that holds the labels (of files: folder); now {field}"
            if not counts
            else "lower the number, or give documents of more labels",
        )
    return labels
