"""What Ray costs a step, once a run is under way.

Two runs live at once, and take turns of a few seconds: all processes of the one, those of Ray too, are
stopped by signals while those of the other run. So each ratio is one of neighbours in time; between whole
runs, the speed of a machine drifts by more than what is looked for.
"""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from statistics import mean
from typing import Any

from cluster_bench.runs import environment, local_cluster, started
from data_bench.spread import interval_95, spread

from training.metrics import surviving_rows

BAR = 0.02
WINDOW_S = 4.0
VERBS = ("train", "submit")


def run(quick: bool) -> dict[str, Any]:
    """Seconds of a step in every turn, and what Ray costs in each pair of neighbouring ones."""
    pairs = 2 if quick else 60
    with local_cluster() as folder:
        runs = {verb: folder / "runs" / verb for verb in VERBS}
        processes: list[subprocess.Popen[bytes]] = []
        try:
            for verb in VERBS:
                processes.append(started(folder, verb, runs[verb], steps=100_000))
                _await_steps(runs[verb], 20)
                _signal(folder, verb, signal.SIGSTOP)
            turns = _take_turns(folder, pairs)
        finally:
            for verb in VERBS:
                _signal(folder, verb, signal.SIGCONT)
            for process in processes:
                process.kill()
            _signal(folder, "train", signal.SIGKILL)
        found = {verb: [_step_s(_times(runs[verb]), *turn) for turn in turns[verb]] for verb in VERBS}
    costs = [ray / bare - 1 for bare, ray in zip(found["train"], found["submit"], strict=True)]
    return {
        "bar": BAR,
        "step_s": {verb: spread(values) for verb, values in found.items()},
        "cost": {**spread(costs), "mean": round(mean(costs), 4), "interval_95": interval_95(costs)},
    }


def _take_turns(folder: Path, pairs: int) -> dict[str, list[tuple[float, float]]]:
    """When the turns of each began and ended; who comes first changes from pair to pair."""
    turns: dict[str, list[tuple[float, float]]] = {verb: [] for verb in VERBS}
    for pair in range(pairs):
        for verb in VERBS if pair % 2 else reversed(VERBS):
            _signal(folder, verb, signal.SIGCONT)
            begun = time.time()
            time.sleep(WINDOW_S)
            turns[verb].append((begun, time.time()))
            _signal(folder, verb, signal.SIGSTOP)
    return turns


def _step_s(times: list[float], begun: float, ended: float) -> float:
    """Mean seconds from step to step; the step that was under way at the beginning is left out."""
    inside = [one for one in times if begun < one < ended]
    if len(inside) < 4:
        raise RuntimeError(f"{len(inside)} steps in a turn of {ended - begun:.1f} s: too few to compare")
    return (inside[-1] - inside[0]) / (len(inside) - 1)


def _times(run: Path) -> list[float]:
    return [row["time"] for row in surviving_rows(run) if row["kind"] == "train"]


def _await_steps(run: Path, number: int) -> None:
    deadline = time.monotonic() + 300
    while not (run / "metrics.jsonl").exists() or len(_times(run)) < number:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{run.name}: no {number} steps within five minutes")
        time.sleep(0.2)


def _signal(folder: Path, verb: str, number: signal.Signals) -> None:
    """To all processes of one side: those with its home in their environment."""
    mark = f"SEEDBED_HOME={environment(folder, verb)['SEEDBED_HOME']}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    os.kill(int(entry.name), number)
