"""Supervised fine-tuning: predicting what the assistant says, and nothing else, with a decoder.

It is next-token prediction on other samples: whole examples side by side, of which the responses alone weigh
anything. Datasets of running text may be mixed in; of these every token weighs, as in pretraining.
"""

from typing import ClassVar

import torch

from data.batches import Batch, Stream
from data.config import OrderConfig
from data.examples.supervised import SupervisedStream
from data.examples.table import ExampleTable, is_examples
from data.shards import Dataset
from data.split import Split
from seedbed.errors import ConfigError
from training.config import Config
from training.objectives import TensorBatch
from training.tasks.base import Datasets
from training.tasks.causal_lm import CausalLMTask


class SupervisedTask(CausalLMTask):
    """Examples of conversations, prompts with responses, or instructions; of rankings, the best answer
    too."""

    settings: ClassVar[tuple[str, ...]] = (*CausalLMTask.settings, "pack", "too_long", "per_example")

    def __init__(self, config: Config, datasets: Datasets) -> None:
        super().__init__(config, datasets)
        if not self.reads_examples:
            raise ConfigError(
                'objective.name = "sft" learns from examples, and '
                + ", ".join(str(dataset.location) for dataset in datasets.values())
                + " holds running text",
                'build the data with data.format set to what its rows are, such as "messages"',
            )
        self._datasets = datasets
        self._streams: dict[tuple[str, str], SupervisedStream] = {}

    def stream(self, split: Split, order: OrderConfig) -> Stream[Batch]:
        dataset = self._dataset_of(split)
        if not is_examples(dataset):
            order = order.model_copy(update={"within_documents": True})
            return super().stream(split, order)
        key = (dataset.digest, split.name)
        if key not in self._streams:
            settings = self.config.objective
            self._streams[key] = SupervisedStream(
                ExampleTable.of(dataset, split.name),
                self.config.model.context,
                self.config.run.seed,
                pack=settings.pack,
                too_long=settings.too_long,
                per_example=settings.per_example,
            )
        return self._streams[key]

    def _dataset_of(self, split: Split) -> Dataset:
        return next(
            d for d in self._datasets.values() if split.name in d.splits and d.split(split.name) is split
        )

    def tensors(self, batch: Batch) -> TensorBatch:
        return TensorBatch(
            torch.from_numpy(batch.tokens),
            torch.from_numpy(batch.targets),
            torch.from_numpy(batch.weights),
            torch.from_numpy(batch.positions),
            torch.from_numpy(batch.documents),
        )

    def notices(self) -> list[str]:
        told = []
        for name, dataset in self._datasets.items():
            if is_examples(dataset):
                stream = self.stream(dataset.split("train"), self.config.order)
                assert isinstance(stream, SupervisedStream)
                left_out = stream.fitting.described()
                told.append(
                    f"{name}: {stream.num_examples:,} examples in {stream.num_samples:,} rows, "
                    f"{stream.filled:.0%} of their places filled" + (f"; {left_out}" if left_out else "")
                )
        return told
