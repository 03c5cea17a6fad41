"""What reinforcement learning and evaluation need of whatever generates their texts."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from models.generation.requests import Completion, Request


class RolloutEngine(Protocol):
    """Tokens in, tokens and log-probabilities out, from weights that can be replaced and proved."""

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """The answers, in the order of the requests."""
        ...

    def load_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Take new weights, by canonical parameter name; all of them, or UsageError and none."""
        ...

    def weights_hash(self) -> str:
        """Hash of the weights that the next answer comes from, equal to that of a checkpoint of them."""
        ...
