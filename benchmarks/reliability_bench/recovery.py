"""From a rank that is killed to the next optimizer step, and from one that is stopped to the restart.

Everything as it is set by default: two ranks of the demonstration's model, fsdp, in exact mode.
"""

import tempfile
from pathlib import Path
from typing import Any

BARS = {"killed_to_next_step_s": 30, "stopped_to_restart_s": 35}
SETS = ["eval.every_steps=0", "tracking.mlflow=false", "engine.exact=true", "restarts.infrastructure=100"]


def run(quick: bool) -> dict[str, Any]:
    """Seconds of each, and the stacks' first lines for those that were stopped."""
    from data_bench.spread import spread

    kills, stops = (2, 1) if quick else (10, 3)
    found: dict[str, Any] = {"bars": BARS}
    found["killed_to_next_step_s"] = spread(_lost("SIGKILL", kills, until="step"))
    found["stopped_to_restart_s"] = spread(_lost("SIGSTOP", stops, until="restarted"))
    return found


def _lost(name: str, number: int, until: str) -> list[float]:
    from reliability_bench.supervised import run_with_faults

    from seedbed.files import read_lines
    from training.metrics import read_events

    faults = [{"signal": name, "rank": i % 2, "after_steps": 40} for i in range(number)]
    sets = [*SETS, f"run.steps={60 * (number + 1)}", "checkpoint.every_steps=20", "run.max_restarts=100"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        happened = run_with_faults(path, sets, faults)
        if until == "step":
            # The first row that a later attempt wrote.
            rows = [row for row in read_lines(path / "metrics.jsonl") if row.get("kind") == "train"]
            first: dict[int, float] = {}
            for row in rows:
                first.setdefault(row["attempt"], row["time"])
            ends = sorted(first.values())
        else:
            ends = [event["time"] for event in read_events(path) if event["kind"] == until]
    if len(happened) != number:
        raise RuntimeError(f"{len(happened)} of {number} happened")
    return [min(end for end in ends if end > fault["time"]) - fault["time"] for fault in happened]
