"""What a task is: the one place that knows what samples look like and what is learned from them.

A task goes with an objective: it reads splits as samples, turns them into tensors, and holds the loss.
The loop, the engines and the checkpoints know none of it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from data.batches import Stream
from data.config import OrderConfig
from data.shards import Dataset
from data.split import Split
from models.families import AnyModelConfig
from training.config import Config
from training.objectives import Objective

Datasets = Mapping[str, Dataset]


class Task(ABC):
    """One kind of learning, over the datasets of a run."""

    settings: ClassVar[tuple[str, ...]]
    """The fields of `[objective]` that it reads."""

    @abstractmethod
    def __init__(self, config: Config, datasets: Datasets) -> None:
        """Raises ConfigError or DataError when model, settings and data do not fit this task."""

    @classmethod
    @abstractmethod
    def filled_in(cls, config: Config, datasets: Datasets) -> AnyModelConfig:
        """`config.model` with what the data decide: sizes that were left at 0."""

    @abstractmethod
    def objective(self, device: torch.device) -> Objective:
        """The loss; what it needs beside the model lies on `device`."""

    @abstractmethod
    def stream(self, split: Split, order: OrderConfig) -> Stream[Any]:
        """The samples of a split; TooLittleData when it has none. Held-out ones are the same every time."""

    @abstractmethod
    def tensors(self, batch: Any) -> Any:
        """The batch as a NamedTuple of tensors in host memory."""

    def scored_bytes(self, batch: Any) -> float:
        """UTF-8 bytes of the text that a batch of tensors is scored on; 0 where that has no meaning."""
        return 0.0

    def notices(self) -> list[str]:
        """What a user should know of the data before the run: what is left out of it."""
        return []

    def attachments(self) -> dict[str, bytes]:
        """Files that every checkpoint carries along, beside the tokenizer."""
        return {}


def each_tensor(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A batch with `change` made to all of its tensors."""

    def changed(value: Any) -> Any:
        if isinstance(value, Tensor):
            return change(value)
        return each_tensor(value, change) if hasattr(value, "_fields") else value

    return type(batch)(*map(changed, batch))
