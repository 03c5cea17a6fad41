"""The launcher protocol."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class WorkerSpec:
    """One worker: `python -P -m module *arguments`, its output appended to `log`."""

    name: str
    module: str
    arguments: Sequence[str]
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    inherited_files: tuple[int, ...] = ()
    """Descriptors that stay open in the worker: the run's lock."""


class Worker(Protocol):
    """A started worker."""

    name: str
    place: str
    """The host it is on; empty for this machine."""

    def poll(self) -> int | None:
        """Its exit code, or None while it runs; death by signal n is -n."""
        ...

    def terminate(self) -> None:
        """Ask it to save and stop (SIGTERM)."""
        ...

    def kill(self) -> None:
        """End it at once, and wait until it is gone."""
        ...

    def is_stopped(self) -> bool:
        """Whether a signal has stopped it (SIGSTOP), so that it neither runs nor ends."""
        ...

    def stack(self) -> str:
        """Where its threads are in Python code, empty when it does not answer. A stopped one goes on."""
        ...


class Launcher(Protocol):
    """Starts workers somewhere."""

    last_words_s: float
    """How long the fellows of a dead worker have to end by themselves and say what they saw; where machines
    can be lost, as long as it takes to learn of it."""

    def make_room(self, num_ranks: int, is_given_up: Callable[[], bool]) -> int:
        """Have room for the next attempt, and return for how many workers: `num_ranks`, unless what there is
        decides. Waits while there is too little; 0 once `is_given_up` says so."""
        ...

    def has_more_room(self) -> bool:
        """Whether an attempt begun now would have more workers than the last one."""
        ...

    def start(self, spec: WorkerSpec) -> Worker: ...
