"""Tasks asked of a model while it is trained, on all ranks at once.

Every rank asks the same, by forwards in which all take part: so a model that is cut over the ranks is asked
where it lies, and all of them know what it answered.
"""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from data.tokenizers import Tokenizer
from evals.results import TASKS, definition_of, stamped, write_result
from evals.scoring import PaddedBackend, Scorer
from evals.scoring.padded import LogitsOf
from evals.task_results import ItemScores
from evals.task_scoring import Asked, about, question_of
from evals.tasks.definition import is_task_file, load_task
from evals.tasks.running import run
from seedbed.errors import ConfigError, UsageError


def checked(names: Sequence[str], *, has_held_out: bool) -> tuple[str, ...]:
    """The tasks by names that hold in any folder; ConfigError or UsageError for one that cannot be asked."""
    for name in names:
        if name in TASKS:
            raise UsageError(
                f"eval.tasks: {name} has no items to ask", "leave it out: validation measures bits per byte"
            )
        items = (task := definition_of(name)).items
        if items.build and items.texts == "holdout" and not has_held_out:
            raise ConfigError(
                f"eval.tasks: {name} is made of held-out texts of one dataset, and there are none",
                "set data.holdout_fraction, or ask tasks that bring their items",
            )
        if items.format and not task.path(items.path).exists():
            raise ConfigError(f"eval.tasks: {task.path(items.path)} does not exist", "check items.path")
    return tuple(str(Path(name).resolve()) if is_task_file(name) else name for name in names)


class TasksInTraining:
    """The first `num_items` of each task, ready to be asked."""

    def __init__(
        self,
        names: Sequence[str],
        num_items: int,
        logits: LogitsOf,
        tokenizer: Tokenizer,
        *,
        context: int,
        device: torch.device,
        held_out: Path | None,
    ) -> None:
        """Every rank must call `logits` with the same tokens; `held_out` is where items are made of."""
        backend = PaddedBackend(logits, context=context, device=device, decode=tokenizer.decode)
        self.scorer, self.asked = Scorer(backend, tokenizer), Asked(limit=num_items)
        tasks = [load_task(name) for name in names]
        self.questions = [question_of(task, self.scorer, self.asked, held_out) for task in tasks]

    def scores(self, step: int, write_to: Path | None, still: Callable[[], None]) -> dict[str, float]:
        """The metric of each task by its name, with the ends of its interval; the results go to the run
        `write_to`, as those of `seedbed eval` do. `still` is called between requests."""
        told: dict[str, float] = {}
        for question, origin in self.questions:
            started, name = time.monotonic(), question.task.name
            result, scores = run(question, self.scorer, lambda _: still())
            result |= about(question.task, self.scorer, self.asked, origin)
            ends = {name: result["value"], f"{name}_low": result["low"], f"{name}_high": result["high"]}
            told |= {key: float(value) for key, value in ends.items() if value is not None}
            if write_to:
                self._write(write_to, stamped(name, step, result, started), scores)
        return told

    def _write(self, run_dir: Path, result: dict[str, Any], scores: ItemScores) -> None:
        try:
            write_result(run_dir, result["task"], result, scores, is_own=False)
        except OSError as error:
            # The scores are in the record; a full disk must not end what is trained.
            print(f"{result['task']} is not written: {error}", file=sys.stderr)
