"""The pipeline `r1-demo` to its end: how many answers are right, and thought through, after each stage."""

import tempfile
import time
from pathlib import Path
from typing import Any

from rl_bench.arithmetic import right
from rl_bench.runs import seedbed

STAGES = ("cold-start", "rl", "sft", "rl-again")
RULES = ("accuracy", "format")
QUICK = (
    "cold-start.run.steps=100", "rl.run.steps=2", "samples.at-least=0", "samples.prompts=40",
    "sft.run.steps=20", "rl-again.run.steps=2",
)  # fmt: skip


def run(quick: bool) -> dict[str, Any]:
    """One run of it, of a seed."""
    few = [word for setting in QUICK for word in ("--set", setting)] if quick else []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.perf_counter()
        seedbed(folder, "pipeline", "r1-demo", "--store", "store", "--out", "r1", "--mlflow", "none", *few)
        took_s = time.perf_counter() - started
        data = str(folder / "r1" / "tasks")
        stages = {stage: right(folder, folder / "r1" / stage, data, RULES) for stage in STAGES}
    return {"took_s": round(took_s, 1), "stages": stages}
