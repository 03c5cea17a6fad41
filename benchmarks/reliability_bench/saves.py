"""How long a save keeps training waiting, and how much slower the steps beside the writing are.

Saves in the background and saves that the loop waits for to the end, in turn, in one process: a ratio is one
of neighbours in time. The state is that of the model of `train_bench/gpt.toml`: 167 MB.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

BAR = {"share_of_synchronous": 0.05, "or_s": 0.05}


def run(quick: bool) -> dict[str, Any]:
    """Seconds of both kinds of save, their ratios, and what the steps beside a save took more."""
    from data_bench.spread import spread
    from train_bench.runs import RECIPE, assignments, sized

    settings = {**sized(quick, 1, 2), "engine.threads_per_rank": 1}
    asked = {"recipe": str(RECIPE), "sets": assignments(settings), "rounds": 2 if quick else 12}
    with tempfile.TemporaryDirectory() as folder:
        asked["run"] = folder + "/run"
        command = [sys.executable, "-P", str(Path(__file__)), json.dumps(asked)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr[-3000:])
    found = json.loads(done.stdout.splitlines()[-1])
    blocked, synchronous = found["blocked_s"], found["synchronous_s"]
    return {
        "checkpoint_bytes": found["bytes"],
        "blocked_s": spread(blocked),
        "synchronous_s": spread(synchronous),
        "share_of_synchronous": spread([a / b for a, b in zip(blocked, synchronous, strict=True)]),
        "step_s": found["step_s"],
        "steps_beside_a_save_slower_by_s": spread(found["slowed_s"]),
        "bar": BAR,
    }


def one_rank(asked: dict[str, Any]) -> dict[str, Any]:
    """Rounds of one save of each kind; the first round, in which memory is new, is left out."""
    import torch

    from training import prepare
    from training.checkpoint.layout import step_dir
    from training.devices import threads_per_rank
    from training.processes import StopFlag, process_group, set_arithmetic
    from training.restore import restore
    from training.trainer import Trainer

    run, _ = prepare.start(asked["recipe"], [*asked["sets"], "run.steps=1000000"], Path(asked["run"]))
    set_arithmetic()
    torch.set_num_threads(threads_per_rank(run.config().engine))
    blocked, synchronous, slowed = [], [], []
    alone: list[float] = []
    with process_group(0, 1, "cpu", run.path / "rendezvous", 600) as group:
        trainer = Trainer(run, group, 0, StopFlag())
        state = restore(trainer)

        def step() -> float:
            started = time.perf_counter()
            trainer.train_step(state)
            return time.perf_counter() - started

        def save() -> float:
            started = time.perf_counter()
            trainer.save(state)
            return time.perf_counter() - started

        for number in range(asked["rounds"] + 1):
            alone += [step() for _ in range(3)]
            blocked_s = save()
            beside = []
            while trainer.saver.is_busy:
                beside.append(step())
            trainer.settle_save()
            alone += [step() for _ in range(3)]
            started = time.perf_counter()
            save()
            trainer.settle_save()
            if number:
                blocked.append(blocked_s)
                synchronous.append(time.perf_counter() - started)
                slowed.append(sum(beside) - len(beside) * median(alone[-12:]))
        num_bytes = sum(path.stat().st_size for path in step_dir(run.path, state.step).iterdir())
        trainer.batches.close()
    return {
        "bytes": num_bytes,
        "blocked_s": blocked,
        "synchronous_s": synchronous,
        "slowed_s": slowed,
        "step_s": median(alone),
    }


if __name__ == "__main__":
    print(json.dumps(one_rank(json.loads(sys.argv[1]))))
