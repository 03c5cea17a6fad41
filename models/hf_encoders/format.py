"""What one Hugging Face model type is, as data: its settings and its tensor names, each read both ways."""

from collections.abc import Collection
from typing import Any, NamedTuple, Protocol

from models.hf.settings import REQUIRED, Settings

Shapes = dict[str, tuple[int, ...]]


class Setting(NamedTuple):
    """One field of our configuration and the key of config.json that holds it."""

    field: str
    key: str
    default: Any = REQUIRED
    """What a config.json without the key means."""


class Format(Protocol):
    """How one model type is read and written; `models.hf_encoders.convert` does the rest."""

    @property
    def architectures(self) -> tuple[str, ...]:
        """Classes that config.json may name."""

    @property
    def leftovers(self) -> tuple[str, ...]:
        """Patterns of tensors that old files carry and nothing reads."""

    def read(self, settings: Settings, names: Collection[str]) -> Any:
        """Our configuration, from config.json and the names of tensors; ValueError where numbers clash."""

    def write(self, config: Any) -> dict[str, Any]:
        """The settings of config.json; ConfigError for a head that this model type lacks."""

    def shapes(self, config: Any) -> Shapes:
        """Our name -> shape of every parameter."""

    def names(self, config: Any) -> dict[str, str]:
        """Our name -> Hugging Face name of every parameter that there is a name for."""

    def resolved(self, config: Any) -> dict[str, Any]:
        """What the model computes with, field by field: equal for two configurations of the same model."""

    def copies(self, config: Any) -> dict[str, str]:
        """Hugging Face names that a file may repeat a tied parameter under -> our name of it."""


def read_settings(table: Collection[Setting], settings: Settings) -> dict[str, Any]:
    """Our fields, by the table; DataError naming a key that is missing."""
    return {field: settings.get(key, default) for field, key, default in table}


def expand(
    pairs: Collection[tuple[str, str]], shapes: Shapes, num_blocks: int, **values: str
) -> dict[str, str]:
    """Our name -> theirs, for each (theirs, ours) pair of stems and each block `{i}`, where we have it.

    `values` fill the other braces of the stems on their side; of two pairs for one name, the later counts.
    """
    found = {}
    for theirs, ours in pairs:
        for i in range(num_blocks if "{i}" in ours else 1):
            for suffix in (".weight", ".bias"):
                name = ours.format(i=i) + suffix
                if name in shapes:
                    found[name] = theirs.format(i=i, **values) + suffix
    return found
