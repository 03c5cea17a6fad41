"""The data of a run: its datasets by name, opened; what identifies them; the samples they give."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from data.batches import Batch, Stream
from data.build import cache_dir, ensure_dataset
from data.config import DataConfig
from data.mixture import MixtureStream, check_same_tokenizer, open_stream
from data.order_hash import sample_digests, step_digest
from data.packing import PackedStream
from data.shards import Dataset
from seedbed.errors import ConfigError
from seedbed.files import digest_of
from training.batch_layout import BatchLayout
from training.config import Config
from training.objectives import TensorBatch

ONLY = "data"
"""The name of a dataset that is alone."""


def resolve_data(data: DataConfig, *, rebuild: bool = False) -> DataConfig:
    """`data` with the path of its dataset filled in, which is built if need be.

    `rebuild` lets a dataset that has vanished from the cache be built again; one that was given by its
    path is not ours to replace.
    """
    if rebuild and data.path and "://" not in data.path:
        path = Path(data.path)
        if path.is_relative_to(cache_dir()) and not path.exists():
            data = data.model_copy(update={"path": ""})
    if data.paths:
        if data.path:
            raise ConfigError(
                "data.path and data.paths exclude each other", 'set data.path to "", or data.paths to {}'
            )
        paths = {name: Dataset.open(path).location.absolute for name, path in data.paths.items()}
        return data.model_copy(update={"paths": paths})
    return data.model_copy(update={"path": Dataset.open(ensure_dataset(data)).location.absolute})


def open_datasets(data: DataConfig) -> dict[str, Dataset]:
    """The datasets of a resolved configuration by name; DataError when their tokenizers differ."""
    datasets = {name: Dataset.open(path) for name, path in (data.paths or {ONLY: data.path}).items()}
    check_same_tokenizer(datasets)
    return datasets


def digest(datasets: Mapping[str, Dataset]) -> str:
    """What identifies the data of a run: the digest of its dataset, or one over all of them by name."""
    if set(datasets) == {ONLY}:
        return datasets[ONLY].digest
    return digest_of({name: dataset.digest for name, dataset in datasets.items()})


def training_stream(datasets: Mapping[str, Dataset], config: Config) -> Stream[Batch]:
    """The samples that the run learns from."""
    return open_stream(datasets, "train", config.order, config.model.context, config.run.seed)


def holdout_stream(datasets: Mapping[str, Dataset], config: Config) -> Stream[Batch] | None:
    """The samples that it is validated on; None when no dataset holds any out."""
    held_out = {name: dataset for name, dataset in datasets.items() if _can_validate(dataset, config)}
    order = config.order.model_copy(update={"packing": "concat", "weights": {}, "stages": ()})
    if not held_out:
        return None
    return open_stream(held_out, "holdout", order, config.model.context, config.run.seed)


def _can_validate(dataset: Dataset, config: Config) -> bool:
    return dataset.split("holdout").num_tokens > config.model.context


def holdout_notices(datasets: Mapping[str, Dataset], config: Config) -> list[str]:
    """Which datasets hold out too little for a single window: their validation is left out."""
    return [
        f"the held-out split of {dataset.location} has {dataset.split('holdout').num_tokens:,} tokens, fewer "
        f"than one window of model.context + 1 = {config.model.context + 1:,}: it is not validated on"
        for dataset in datasets.values()
        if not _can_validate(dataset, config)
    ]


def epochs(stream: Stream[Batch], position: int) -> float | dict[str, float]:
    """How often the data was read before `position`; of a mixture, each source."""
    return stream.epochs_of(position) if isinstance(stream, MixtureStream) else position / stream.num_samples


def repetition_warnings(stream: Stream[Batch], num_samples: int) -> list[str]:
    """What a user should know of data that is read too often in `num_samples`."""
    mixture = stream if isinstance(stream, MixtureStream) else MixtureStream({"the training data": stream})
    return mixture.epoch_warnings(num_samples)


def packing_rates(stream: Stream[Batch]) -> dict[str, Any]:
    """How packing fares, by source: shares of tokens cropped and padded, of documents cut."""
    streams = stream.streams if isinstance(stream, MixtureStream) else {ONLY: stream}
    return {name: packed.rates() for name, packed in streams.items() if isinstance(packed, PackedStream)}


def micro_batches(
    stream: Stream[Batch], layout: BatchLayout, rank: int, position: int
) -> tuple[list[Batch], int]:
    """What `rank` computes in the step from `position`, turn by turn, and its part of the step's hash.

    A turn without a micro-batch of its own gets the first one with weights of zero.
    """
    size = layout.micro_batch_size
    batches, parts = [], 0
    for turn in range(layout.turns):
        index = layout.micro_batch(rank, turn)
        batch = stream.batch(position + (index or 0) * size, size)
        if index is None:
            batch.weights[:] = 0
        else:
            parts += step_digest(sample_digests(batch), index * size)
        batches.append(batch)
    return batches, parts % 2**64


def to_tensors(batch: Batch, within_documents: bool, pin: bool) -> TensorBatch:
    """The batch as tensors in host memory, pinned so that a GPU can fetch them while it computes."""

    def tensor(array: Any) -> torch.Tensor:
        value = torch.from_numpy(array)
        return value.pin_memory() if pin else value

    inside = (tensor(batch.positions), tensor(batch.documents)) if within_documents else (None, None)
    return TensorBatch(tensor(batch.tokens), tensor(batch.targets), tensor(batch.weights), *inside)


def on_device(batch: TensorBatch, device: torch.device) -> TensorBatch:
    """The batch on `device`; from pinned memory without waiting for the copy."""

    def moved(value: torch.Tensor) -> torch.Tensor:
        return value.to(device, non_blocking=True)

    inside = (None if value is None else moved(value) for value in (batch.positions, batch.documents))
    return TensorBatch(moved(batch.tokens), moved(batch.targets), moved(batch.weights), *inside)
