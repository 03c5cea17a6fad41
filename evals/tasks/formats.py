"""Files of published benchmarks -> items."""

from pathlib import Path

from evals.tasks.items import TaskItem


def read_file(name: str, path: Path, subset: str = "") -> list[TaskItem]:
    """The items of a file."""
    raise NotImplementedError
