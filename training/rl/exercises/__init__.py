"""Tasks whose best answers are known: for seeing whether reinforcement learning learns what it should.

Each module has `examples(seed)`, rows to learn from first, `tasks(seed)`, rows whose prompts are to be
answered, and a function for `rl.rewards`. `seedbed data exercise NAME` writes both as JSON Lines.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from seedbed.errors import UsageError
from seedbed.files import write_atomic
from training.rl.exercises import arithmetic, randomwalks, reasoning

Rows = Callable[[int], Iterator[dict[str, str]]]
EXERCISES: dict[str, tuple[Rows, Rows, str]] = {
    "randomwalks": (
        randomwalks.examples,
        randomwalks.tasks,
        "training.rl.exercises.randomwalks:optimality",
    ),
    "arithmetic": (arithmetic.examples, arithmetic.tasks, "accuracy"),
    "reasoning": (reasoning.examples, reasoning.tasks, "accuracy, format"),
}
"""Name -> (examples, tasks, what to reward answers by)."""


def write(name: str, out: Path, seed: int) -> dict[str, Any]:
    """`out`/examples.jsonl and `out`/tasks.jsonl; how many rows, and the reward."""
    if name not in EXERCISES:
        raise UsageError(f"there is no exercise {name}", f"one of {', '.join(EXERCISES)}")
    *parts, reward = EXERCISES[name]
    counts = {}
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty", "choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    for part, rows in zip(("examples", "tasks"), parts, strict=True):
        lines = [json.dumps(row) + "\n" for row in rows(seed)]
        write_atomic(out / f"{part}.jsonl", "".join(lines))
        counts[part] = len(lines)
    return {"out": str(out), "reward": reward, **counts}
