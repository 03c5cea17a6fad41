"""Peak memory of a step, with full activation checkpointing and a chunked loss and with neither, and planned.

`tensors` is counted as PyTorch allocates and frees them, from building the model to the end of the second
step: weights, gradients, moments, activations, logits. `process` is the resident memory of a run of `seedbed
train`, which has the interpreter, libraries and what the allocator keeps on top.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from train_bench.runs import RECIPE, assignments, sized, timed_run

BAR = 0.10
CASES = {
    "neither": {"engine.checkpointing": "none", "objective.num_chunks": 1},
    "full checkpointing, 8 chunks": {"engine.checkpointing": "full", "objective.num_chunks": 8},
}


def run(quick: bool) -> dict[str, Any]:
    """MiB of tensors, as planned, and of the process, for both cases."""
    found: dict[str, Any] = {"bar": {"off_plan": BAR}}
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, case) in enumerate(CASES.items()):
            settings = {**sized(quick, 1), "engine.threads_per_rank": 1, **case}
            tensors, planned = _tensors(settings, Path(folder, f"rendezvous-{number}"))
            process = timed_run(Path(folder, str(number)), settings, steps=2, warm_up=2)["memory_bytes"]
            found[name] = {
                "tensors_mib": round(tensors / 2**20, 1),
                "planned_mib": round(planned / 2**20, 1),
                "off_plan": round(tensors / planned - 1, 4),
                "process_mib": round(process / 2**20, 1),
            }
    first, second = (found[name]["tensors_mib"] for name in CASES)
    return {**found, "times_less": round(first / second, 2)}


def _tensors(settings: dict[str, Any], rendezvous: Path) -> tuple[int, int]:
    """(bytes of tensors at the peak, what the plan says of them)."""
    from train_bench.synthetic import SyntheticRun

    from training.memory_plan import memory_by_part
    from training.processes import process_group
    from training.recipes import load_config

    # The counter is that of the tests.
    sys.path.append(str(Path(__file__).parents[2] / "tests"))
    from live_tensors import LiveTensors

    config = load_config(str(RECIPE), assignments(settings))
    torch.set_num_threads(1)
    with process_group(0, 1, "cpu", rendezvous, 60) as group, LiveTensors() as live:
        synthetic = SyntheticRun(config, group, config.model.vocab_size)
        for step in range(2):
            synthetic.step(step)
    return live.peak_bytes, memory_by_part(config)["total"]
