"""An item of a task, whatever file or text it was made of."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from seedbed.errors import DataError
from seedbed.files import digest_of


@dataclass(frozen=True)
class TaskItem:
    """One question."""

    id: str
    fields: dict[str, str] = field(default_factory=dict)
    """What templates may name."""
    choices: tuple[str, ...] = ()
    answer: int | None = None
    """Which choice is right; None where none is, as in a measure of bias."""
    labels: tuple[str, ...] = ()
    """What each choice stands for, where that is not its number."""
    references: tuple[str, ...] = ()
    """Right answers, of what is generated."""
    tests: tuple[str, ...] = ()
    """Statements that a right answer, as code, comes to the end of."""
    around: tuple[str, str] = ("", "")
    """Code that the tests need before and after the answer."""
    document: str = ""
    """What it was made of: items of one document are not independent of each other."""
    source: str = ""
    """Where the document is from, such as a package: the cluster of an interval."""

    def content(self) -> list[Any]:
        """All that a model is asked and judged by."""
        return [self.fields, self.choices, self.answer, self.references, self.tests, self.around]


def items_digest(items: Iterable[TaskItem]) -> str:
    """SHA-256 over ids and contents, in order: equal for two evaluations of the same questions."""
    return digest_of([[item.id, *item.content()] for item in items])


def checked(items: Sequence[TaskItem], origin: str, kind: str) -> tuple[list[TaskItem], int]:
    """The items without those that came before, and how many did; DataError for one that cannot be asked."""
    kept: dict[str, TaskItem] = {}
    names: set[str] = set()
    for item in items:
        if kind == "multiple-choice":
            _check_choices(item, origin)
        kept.setdefault(digest_of(item.content()), item)
    for item in kept.values():
        if item.id in names:
            raise DataError(f"{origin}: two items are called {item.id!r}", "give each an id of its own")
        names.add(item.id)
    if not kept:
        raise DataError(f"{origin} has no item", "name a place with at least one")
    return list(kept.values()), len(items) - len(kept)


def _check_choices(item: TaskItem, origin: str) -> None:
    if len(item.choices) < 2:
        raise DataError(
            f"{origin}: item {item.id!r} has {len(item.choices)} choices", "give each item two or more"
        )
    for number, choice in enumerate(item.choices):
        if not choice:
            raise DataError(f"{origin}: choice {number} of item {item.id!r} is empty", "give it a text")
    if item.answer is not None and not 0 <= item.answer < len(item.choices):
        raise DataError(
            f"{origin}: the answer of item {item.id!r} is choice {item.answer}, of {len(item.choices)}",
            "count choices from 0",
        )
