"""The share of a run that the loop takes outside of forward, backward and optimizer.

A run as `seedbed train` makes one, its one rank in a process of its own, with a clock at the engine's two
calls. Outside are data, dropout's seeds, the sums over ranks, records, heartbeats and garbage collection.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BAR = 0.02


def run(quick: bool) -> dict[str, Any]:
    """The share in several runs."""
    from data_bench.spread import spread
    from train_bench.runs import RECIPE, assignments, sized

    steps, warm_up, rounds = (4, 2, 1) if quick else (10, 3, 3)
    settings = {**sized(quick, 2), "engine.threads_per_rank": 1, "run.steps": steps + warm_up}
    found = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            asked = json.dumps(
                {
                    "recipe": str(RECIPE),
                    "sets": assignments(settings),
                    "warm_up": warm_up,
                    "run": folder + "/run",
                }
            )
            command = [sys.executable, "-P", str(Path(__file__)), asked]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(done.stderr[-3000:])
            found.append(json.loads(done.stdout.splitlines()[-1]))
    return {
        "outside_share": spread([one["outside_share"] for one in found]),
        "step_s": spread([one["step_s"] for one in found]),
        "bar": BAR,
    }


class Clock:
    """Sums up the time that is spent inside some calls, and notes the sum at the end of every step."""

    def __init__(self) -> None:
        self.inside_s = 0.0
        self.steps: list[tuple[float, float]] = []

    def around(self, call: Callable[..., Any], *, ends_step: bool) -> Callable[..., Any]:
        """`call`, timed."""

        def timed(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            result = call(*arguments, **options)
            now = time.perf_counter()
            self.inside_s += now - started
            if ends_step:
                self.steps.append((now, self.inside_s))
            return result

        return timed


def one_rank(asked: dict[str, Any]) -> dict[str, float]:
    """Run it; the share outside, and the mean step."""
    import torch

    from training import prepare
    from training.devices import threads_per_rank
    from training.loop import fit
    from training.processes import StopFlag, process_group, set_arithmetic
    from training.trainer import Trainer

    run, _ = prepare.start(asked["recipe"], asked["sets"], Path(asked["run"]))
    config, clock = run.config(), Clock()
    set_arithmetic()
    torch.set_num_threads(threads_per_rank(config.engine))
    with process_group(0, 1, "cpu", run.path / "rendezvous", 600) as group:
        trainer = Trainer(run, group, 0, StopFlag())
        engine: Any = trainer.engine
        engine.micro_batch = clock.around(engine.micro_batch, ends_step=False)
        engine.step = clock.around(engine.step, ends_step=True)
        fit(trainer)
    (first, before), (last, after) = clock.steps[asked["warm_up"] - 1], clock.steps[-1]
    count = len(clock.steps) - asked["warm_up"]
    return {"outside_share": 1 - (after - before) / (last - first), "step_s": (last - first) / count}


if __name__ == "__main__":
    # As a script it is the process that is timed, and the folder of the benchmarks is not on the path.
    print(json.dumps(one_rank(json.loads(sys.argv[1]))))
