"""Seconds from the command until the first optimizer step has ended, in interleaved pairs, cluster warm."""

import time
from pathlib import Path
from typing import Any

from cluster_bench.runs import local_cluster, started
from data_bench.spread import interval_95, spread

from training.metrics import surviving_rows
from training.run_directory import read_json

BAR_S = 10.0
# What a run leaves behind ends before the next one is timed.
PAUSE_S = 3.0


def run(quick: bool) -> dict[str, Any]:
    """Seconds of both, and by how many the submitted run is later."""
    found: dict[str, list[float]] = {"train": [], "submit": []}
    with local_cluster() as folder:
        # The first pair fills the caches, and warms the cluster up.
        for pair in range(-1, 1 if quick else 8):
            for verb in ("train", "submit") if pair % 2 else ("submit", "train"):
                seconds = _first_step(folder, verb, folder / "runs" / f"{verb}-{pair + 1}")
                if pair >= 0:
                    found[verb].append(seconds)
                time.sleep(PAUSE_S)
    later = [ray - bare for bare, ray in zip(found["train"], found["submit"], strict=True)]
    return {
        "bar_s": BAR_S,
        **{verb: spread(values) for verb, values in found.items()},
        "later_s": {**spread(later), "interval_95": interval_95(later)},
    }


def _first_step(folder: Path, verb: str, run: Path) -> float:
    begun = time.time()
    code = started(folder, verb, run, steps=3).wait()
    if code:
        raise RuntimeError(f"{verb} exited with {code}")
    while read_json(run / "status.json").get("state") != "finished":
        time.sleep(0.5)
    first = next(row["time"] for row in surviving_rows(run) if row["kind"] == "train")
    return float(first - begun)
