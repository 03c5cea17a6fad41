"""What Ray costs a run: until its first step, and in every step after it.

Starts a cluster on this machine with a home of its own, then trains the same recipe in interleaved pairs, by
`seedbed train` and by `seedbed submit`. Of each pair: the time from the command to the end of the first
step, and the time from step to step once warm, everything between steps included. Prints one JSON document.

    python -P benchmarks/cluster.py [--pairs 8] [--steps 200] [--ranks 2]
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from training.devices import cpu_flags
from training.metrics import surviving_rows
from training.run_directory import read_json

SEEDBED = str(Path(sys.executable).with_name("seedbed"))
WARM = 30
"""Steps that are left out."""
COMMON = {
    "tracking.mlflow": "false",
    "eval.every_steps": 0,
    "engine.threads_per_rank": 1,
    "engine.device": '"cpu"',
    "checkpoint.every_steps": 100000,
}
# Two-sided 95 % quantiles of Student's t, by degrees of freedom.
STUDENT = {
    1: 12.71,
    2: 4.30,
    3: 3.18,
    4: 2.78,
    5: 2.57,
    6: 2.45,
    7: 2.36,
    8: 2.31,
    9: 2.26,
    11: 2.20,
    15: 2.13,
}


def measure(command: list[str], run: Path, environment: dict[str, str], steps: int) -> dict[str, float]:
    """Seconds until the first step has ended, and from one step to the next."""
    begun = time.time()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command} failed: {done.stderr}")
    while read_json(run / "status.json").get("state") != "finished":
        time.sleep(0.5)
    times = [row["time"] for row in surviving_rows(run) if row["kind"] == "train"]
    assert len(times) == steps
    return {"first_s": times[0] - begun, "step_s": (times[-1] - times[WARM]) / (len(times) - 1 - WARM)}


def interval(values: list[float]) -> dict[str, float]:
    """Mean and 95 % interval (Student's t)."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return {"mean": mean, "low": mean, "high": mean}
    degrees = max(d for d in STUDENT if d <= len(values) - 1)
    half = STUDENT[degrees] * statistics.stdev(values) / math.sqrt(len(values))
    return {"mean": mean, "low": mean - half, "high": mean + half}


def compare(folder: Path, pairs: int, steps: int, ranks: int) -> dict[str, Any]:
    environment = {**os.environ, "SEEDBED_HOME": str(folder / "home"), "RAY_ADDRESS": ""}
    settings = {**COMMON, "run.steps": steps, "engine.num_ranks": ranks}
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    subprocess.run([SEEDBED, "cluster", "up"], env=environment, check=True, capture_output=True)
    found: dict[str, list[dict[str, float]]] = {"train": [], "submit": []}
    try:
        # The first pair fills the caches, and warms the cluster up.
        for pair in range(-1, pairs):
            verbs = ("train", "submit") if pair % 2 else ("submit", "train")
            for verb in verbs:
                run = folder / "runs" / f"{verb}-{pair + 1}"
                command = [SEEDBED, verb, "gpt-demo", "--run-dir", str(run), *sets]
                one = measure(command, run, environment, steps)
                print(f"pair {pair}: {verb} {one}", file=sys.stderr)
                if pair >= 0:
                    found[verb].append(one)
                # What a run leaves behind ends before the next one is timed.
                time.sleep(3)
    finally:
        subprocess.run([SEEDBED, "cluster", "down", "--now"], env=environment, capture_output=True)
    both = list(zip(found["train"], found["submit"], strict=True))
    return {
        "train": found["train"],
        "submit": found["submit"],
        "first_step_later_s": interval([ray["first_s"] - bare["first_s"] for bare, ray in both]),
        "overhead_per_step": interval([ray["step_s"] / bare["step_s"] - 1 for bare, ray in both]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--ranks", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="seedbed-bench-") as folder:
        result = compare(Path(folder), options.pairs, options.steps, options.ranks)
    machine = {"cores": os.cpu_count(), "amx": "amx_bf16" in cpu_flags(), "python": sys.version.split()[0]}
    print(json.dumps({"benchmark": "cluster", **vars(options), "machine": machine, **result}, indent=2))


if __name__ == "__main__":
    main()
