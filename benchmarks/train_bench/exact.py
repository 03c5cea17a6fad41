"""What exact mode costs on two ranks of one thread each.

Beside the same engine as it is without: ranks share gradients once in a step, and AdamW is fused. `lanes`
is how often a rank shares them in a step of exact mode. Both engines live in the same two processes and take
steps in turn, so that a ratio is one of neighbours in time.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

BAR = 0.15
NUM_RANKS = 2


class Case(NamedTuple):
    """A form of exact mode."""

    accumulation: int
    """Micro-batches of a rank in a step."""
    lanes: int
    """Leaves of a rank in a step."""


CASES = (Case(1, 1), Case(8, 8), Case(8, 1))


def run(quick: bool) -> dict[str, Any]:
    """Seconds of a step with and without, and the cost in each pair, by engine, accumulation and lanes."""
    from data_bench.spread import interval_95, spread

    found: dict[str, Any] = {"bar": {"accumulation": 1, "cost": BAR}}
    for engine in ("ddp", "fsdp"):
        for case in CASES[::2] if quick else CASES:
            pairs = _pairs(engine, case, quick)
            found[f"{engine}, accumulation {case.accumulation}, lanes {case.lanes}"] = {
                "step_s": {
                    "plain": spread([plain for plain, _ in pairs]),
                    "exact": spread([exact for _, exact in pairs]),
                },
                "cost": {
                    **spread([exact / plain - 1 for plain, exact in pairs]),
                    "interval_95": interval_95([exact / plain - 1 for plain, exact in pairs]),
                },
            }
    return found


def _pairs(engine: str, case: Case, quick: bool) -> list[tuple[float, float]]:
    """(seconds of a step without, with) in each pair of steps."""
    from train_bench.runs import RECIPE, assignments, sized

    settings = {
        **sized(quick, NUM_RANKS * case.accumulation, 8 if case.accumulation == 1 else 4),
        "engine.name": engine,
        "engine.num_ranks": NUM_RANKS,
        "engine.threads_per_rank": 1,
    }
    exact = {"engine.exact": True, "engine.exact_lanes": NUM_RANKS * case.lanes}
    with tempfile.TemporaryDirectory() as folder:
        asked = json.dumps(
            {
                "recipe": str(RECIPE),
                "sets": [assignments(settings), assignments({**settings, **exact})],
                "pairs": 2 if quick else 16 if case.accumulation == 1 else 4,
                "rendezvous": folder + "/rendezvous",
            }
        )
        command = [sys.executable, "-P", str(Path(__file__)), asked]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        ranks = [
            subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, env=environment, text=True)
            for rank in range(NUM_RANKS)
        ]
        outputs = [rank.communicate()[0] for rank in ranks]
    if any(rank.returncode for rank in ranks):
        raise RuntimeError(f"a rank of {engine}, {case} failed")
    return [tuple(pair) for pair in json.loads(outputs[0].splitlines()[-1])]


def one_rank(asked: dict[str, Any], rank: int) -> list[list[float]]:
    """Steps of both engines in turn, the order turned round in every pair; the first pair is left out."""
    import torch
    import torch.distributed as dist

    # As a script it is the process that is timed, and the folder of the benchmarks is not on the path.
    sys.path.append(str(Path(__file__).parents[1]))
    from train_bench.synthetic import SyntheticRun

    from training.processes import process_group, set_arithmetic
    from training.recipes import load_config

    set_arithmetic()
    torch.set_num_threads(1)
    configs = [load_config(asked["recipe"], sets) for sets in asked["sets"]]
    found = []
    with process_group(rank, NUM_RANKS, "cpu", Path(asked["rendezvous"]), 600) as group:
        engines = [SyntheticRun(config, group, config.model.vocab_size) for config in configs]
        for number in range(asked["pairs"] + 1):
            pair = [0.0, 0.0]
            for which in (0, 1) if number % 2 else (1, 0):
                dist.barrier()
                started = time.perf_counter()
                engines[which].step(number)
                pair[which] = time.perf_counter() - started
            found.append(pair)
    return found[1:]


if __name__ == "__main__":
    print(json.dumps(one_rank(json.loads(sys.argv[1]), int(sys.argv[2]))))
