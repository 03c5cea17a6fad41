"""What the main job costs here: throughput at one and two ranks, saving, starting, recovering.

Runs the demonstration's recipe for a few steps in a temporary folder, in interleaved pairs of one and
two ranks (one thread each), then kills a worker of a longer run. Prints one JSON document.

    python -P benchmarks/spine.py
"""

import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from training.checkpoint.layout import list_steps
from training.devices import cpu_flags
from training.metrics import read_events, surviving_rows
from training.run_directory import read_json

SEEDBED = str(Path(sys.executable).with_name("seedbed"))
PAIRS = 3
COMMON = {"tracking.mlflow": "false", "eval.every_steps": 0, "engine.threads_per_rank": 1}


def start(run: Path, settings: dict[str, Any]) -> subprocess.Popen[bytes]:
    """`seedbed train gpt-demo` with `settings`, its output thrown away."""
    sets = [part for key, value in {**COMMON, **settings}.items() for part in ("--set", f"{key}={value}")]
    command = [SEEDBED, "train", "gpt-demo", "--run-dir", str(run), *sets]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def throughput(folder: Path) -> dict[str, Any]:
    """Median step of runs of one and two ranks, in turn; the first ten steps are warm-up."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    blocked, data_share, startup = [], [], []
    for pair in range(PAIRS):
        for ranks in (1, 2):
            run = folder / f"pair-{pair}-{ranks}"
            begun = time.time()
            settings = {"run.steps": 40}
            if start(run, {**settings, "engine.num_ranks": ranks, "checkpoint.every_steps": 20}).wait():
                raise SystemExit(f"{run} failed: read its logs")
            rows = surviving_rows(run)
            steps = [row for row in rows if row["kind"] == "train"]
            startup.append(steps[0]["time"] - steps[0]["step_s"] - begun)
            rates[ranks].append(statistics.median(row["tokens_per_s"] for row in steps[10:]))
            data_share.append(
                sum(row["data_s"] for row in steps[10:]) / sum(row["step_s"] for row in steps[10:])
            )
            blocked += [row["blocked_s"] * 1000 for row in rows if row["kind"] == "checkpoint"]
    ratios = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
    return {
        "tokens_per_s": {str(ranks): spread(values) for ranks, values in rates.items()},
        "two_ranks_over_one": spread(ratios),
        "data_share_of_step": spread(data_share),
        "save_blocked_ms": spread(blocked),
        "command_to_first_step_s": spread(startup),
    }


def recovery(folder: Path) -> float:
    """Seconds from SIGKILL to one of two ranks until the next optimizer step is recorded."""
    run = folder / "recovery"
    process = start(run, {"run.steps": 5000, "checkpoint.every_steps": 5, "engine.num_ranks": 2})
    while len(list_steps(run)) < 2:
        time.sleep(0.05)
    killed = time.time()
    os.kill(read_json(run / "heartbeats" / "rank-1.json")["pid"], signal.SIGKILL)
    while True:
        attempts = [event for event in read_events(run) if event["kind"] == "attempt_started"]
        done = [row["time"] for row in surviving_rows(run) if row["attempt"] == 1 and row["kind"] == "train"]
        if len(attempts) > 1 and done:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.wait()
    return done[0] - killed


def spread(values: list[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def main() -> None:
    """Measure, and print JSON."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result = throughput(folder)
        result["kill_to_next_step_s"] = spread(
            [recovery(Path(tempfile.mkdtemp(dir=folder))) for _ in range(3)]
        )
    machine = {
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "vector_flags": sorted(cpu_flags() & {"avx2", "avx512f", "avx512_bf16", "amx_bf16"}),
        "python": platform.python_version(),
    }
    print(json.dumps({"benchmark": "spine", "machine": machine, **result}, indent=2))


if __name__ == "__main__":
    main()
