"""The data of a run: its datasets by name, opened; what identifies them; the samples they give."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.batches import Stream, without_weight
from data.build import cache_dir, ensure_dataset
from data.config import DataConfig
from data.mixture import MixtureStream, check_same_tokenizer, mixed
from data.order_hash import sample_digests, step_digest
from data.packing import PackedStream
from data.shards import Dataset
from seedbed.errors import ConfigError, TooLittleData
from seedbed.files import digest_of
from training.batch_layout import BatchLayout
from training.config import Config
from training.tasks import Datasets, Task

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


def training_stream(task: Task, datasets: Datasets, config: Config) -> Stream[Any]:
    """The samples that the run learns from: its datasets, packed and mixed as `[order]` says."""
    streams = {name: task.stream(dataset.split("train"), config.order) for name, dataset in datasets.items()}
    return mixed(streams, config.order)


def holdout_stream(task: Task, datasets: Datasets, config: Config) -> tuple[Stream[Any] | None, list[str]]:
    """The samples that it is validated on, and which datasets hold out too little for a single one."""
    streams, notices = {}, []
    order = config.order.model_copy(update={"weights": {}, "stages": ()})
    for name, dataset in datasets.items():
        try:
            streams[name] = task.stream(dataset.split("holdout"), order)
        except TooLittleData as error:
            notices.append(f"{dataset.location}: {error.message}; it is not validated on")
    return (mixed(streams, order) if streams else None), notices


def epochs(stream: Stream[Any], position: int) -> float | dict[str, float]:
    """How often the data was read before `position`; of a mixture, each source."""
    return stream.epochs_of(position) if isinstance(stream, MixtureStream) else position / stream.num_samples


def repetition_warnings(stream: Stream[Any], num_samples: int) -> list[str]:
    """What a user should know of data that is read too often in `num_samples`."""
    mixture = stream if isinstance(stream, MixtureStream) else MixtureStream({"the training data": stream})
    return mixture.epoch_warnings(num_samples)


def packing_rates(stream: Stream[Any]) -> dict[str, Any]:
    """How packing fares, by source: shares of tokens cropped and padded, of documents cut."""
    streams = stream.streams if isinstance(stream, MixtureStream) else {ONLY: stream}
    return {name: packed.rates() for name, packed in streams.items() if isinstance(packed, PackedStream)}


def micro_batches(
    stream: Stream[Any], layout: BatchLayout, rank: int, position: int
) -> tuple[list[Any], int]:
    """What `rank` computes in the step from `position`, turn by turn, and its part of the step's hash.

    A turn without a micro-batch of its own gets the first one with weights of zero.
    """
    size = layout.micro_batch_size
    batches, parts = [], 0
    for turn in range(layout.turns):
        index = layout.micro_batch(rank, turn)
        batch = stream.batch(position + (index or 0) * size, size)
        if index is None:
            without_weight(batch)
        else:
            parts += step_digest(sample_digests(batch), index * size)
        batches.append(batch)
    return batches, parts % 2**64
