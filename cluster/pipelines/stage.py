"""A stage as a pipeline's file says it: one command, with `{name}` where the artefacts of others stand."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

OUT = "out"
BRANCH = "--branch-from"
_PLACE = re.compile(r"\{([a-z][a-z0-9_-]*)\}")


@dataclass(frozen=True)
class Stage:
    """One command, and the artefact that it makes."""

    name: str
    command: tuple[str, ...]
    """Words after `seedbed`, with `{name}` for artefacts."""
    settings: dict[str, Any] = field(default_factory=dict)
    """`section.field`, or an option of the command -> value, with `{name}` for artefacts."""
    file: str = "out"
    """What the artefact is called in its place; some commands read a suffix."""
    retries: int = 1
    """How often it is run again in one go when it fails of something that may pass."""

    @property
    def writes_out(self) -> bool:
        """Whether it writes to `{out}`; else what it prints is the artefact."""
        return OUT in set(names_in([*self.command, self.settings]))

    @property
    def inputs(self) -> list[str]:
        """The artefacts that it is made of, each once."""
        return [name for name in dict.fromkeys(names_in([*self.command, self.settings])) if name != OUT]

    @property
    def branches_from(self) -> str:
        """The stage whose run its own is a branch of; empty when it is none."""
        pairs = zip(self.command, self.command[1:], strict=False)
        return next((name for option, word in pairs if option == BRANCH for name in names_in(word)), "")

    @property
    def recipe(self) -> str | None:
        """The recipe that it trains, if it trains."""
        return self.command[1] if self.command[0] == "train" and len(self.command) > 1 else None


def filled(value: Any, of: Callable[[str], str]) -> Any:
    """`value` with `of(name)` for every `{name}`, in texts, lists and tables."""
    if isinstance(value, str):
        return _PLACE.sub(lambda match: of(match[1]), value)
    if isinstance(value, list | tuple):
        return [filled(item, of) for item in value]
    if isinstance(value, dict):
        return {key: filled(item, of) for key, item in value.items()}
    return value


def names_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from (match[1] for match in _PLACE.finditer(value))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from names_in(item)
    elif isinstance(value, dict):
        yield from names_in(list(value.values()))
