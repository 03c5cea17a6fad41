"""Ranks of a configuration as processes of their own, and what they report: memory and seconds per step."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.config import Config
from training.devices import memory_bytes
from training.processes import process_group, set_arithmetic
from training.recipes import load_config, to_toml

HERE = Path(__file__).parent
# glibc gives freed memory back at once when the size from which it asks the kernel is fixed; left alone, it
# raises that to 32 MiB, and a process keeps up to a tenth more than its tensors, another amount on each rank.
# Workers of a run are left alone: giving back took a fifth of the CPU time of a small model.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536"}


def run_ranks(config: Config, steps: int) -> list[dict[str, Any]]:
    """What each rank of `config` reports after `steps` steps; raises RuntimeError when one fails."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.toml").write_text(to_toml(config), encoding="utf-8")
        ranks = [
            subprocess.Popen(
                [sys.executable, "-P", str(HERE / "ranks.py"), folder, str(rank), str(steps)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, **ALLOCATOR, "PYTHONPATH": str(HERE.parents[1])},
            )
            for rank in range(config.engine.num_ranks)
        ]
        try:
            found = [rank.communicate(timeout=600) for rank in ranks]
        finally:
            for rank in ranks:
                rank.kill()
    for rank, (_, error) in zip(ranks, found, strict=True):
        if rank.returncode:
            raise RuntimeError(error[-3000:])
    return [json.loads(out.splitlines()[-1]) for out, _ in found]


class Constant:
    """Initial values that cost nothing; moments and gradients are as large with them."""

    def __init__(self, config: Config) -> None:
        self._spread = config.model.width**-0.5

    def __call__(self, name: str, start: int, stop: int) -> np.ndarray:
        """See `training.engines.base.Draw`."""
        values = np.random.default_rng(start).random(stop - start, np.float32)
        values -= 0.5
        values *= self._spread
        return values


def _report(folder: Path, rank: int, steps: int) -> dict[str, Any]:
    sys.path.append(str(HERE.parent))
    from train_bench import synthetic

    config = load_config(str(folder / "config.toml"))
    set_arithmetic()
    torch.set_num_threads(config.engine.threads_per_rank)
    if config.engine.traits.is_zero:
        from training.engines.zero import _joined
    synthetic.Draws = Constant  # type: ignore[assignment, misc]
    with process_group(rank, config.engine.num_ranks, "cpu", folder / "rendezvous", 600) as group:
        if config.engine.traits.is_zero:
            _joined(group)
        forget_peak()
        baseline = memory_bytes(group.device)
        run = synthetic.SyntheticRun(config, group, config.model.vocab_size)
        seconds, peaks, cpu = [], [], []
        for number in range(steps):
            started, began = time.perf_counter(), time.process_time()
            run.step(number)
            seconds.append(time.perf_counter() - started)
            cpu.append(time.process_time() - began)
            peaks.append(memory_bytes(group.device) - baseline)
        return {
            "peak_bytes": peaks[-1],
            "peaks": peaks,
            "baseline_bytes": baseline,
            "step_s": seconds,
            "cpu_s": cpu,
        }


def forget_peak() -> None:
    """Take what the process has now for its peak so far (Linux, proc(5): clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("rank", type=int)
    parser.add_argument("steps", type=int)
    given = parser.parse_args()
    print(json.dumps(_report(given.folder, given.rank, given.steps)), flush=True)
    os._exit(0)
