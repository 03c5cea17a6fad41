"""A run of the demonstration's recipe, supervised as `seedbed train` does, to whose ranks something happens.

As a script it is that run: its argument is JSON with `run` (the directory), `sets`, and `faults`, a list of
{"signal": name, "rank": number} with `at_s`, seconds after the start, or `after_steps`, steps that were taken
since the fault before. When each happened is written to `faults.jsonl` in the run directory.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FAULTS = "faults.jsonl"


def run_with_faults(path: Path, sets: list[str], faults: list[dict[str, Any]], code: int = 0) -> list[Any]:
    """Run it to its end; what happened, each with its time. Raises RuntimeError for another exit code."""
    asked = {"run": str(path), "sets": sets, "faults": faults}
    command = [sys.executable, "-P", str(Path(__file__)), json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != code:
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr[-3000:]}")
    return [json.loads(line) for line in (path / FAULTS).read_text().splitlines()]


def main(asked: dict[str, Any]) -> int:
    """The run itself."""
    from seedbed.errors import SeedbedError
    from seedbed.files import append_line
    from training import prepare
    from training.launch import Worker
    from training.run_directory import RunDirectory, read_json
    from training.supervisor import Supervisor

    path, faults = Path(asked["run"]), list(asked["faults"])
    started, since = time.monotonic(), 0
    attempt_step: dict[int, int] = {}

    def strike(workers: list[Worker]) -> None:
        nonlocal since
        if not faults:
            return
        beat = read_json(path / "heartbeats" / "rank-0.json")
        if beat.get("phase") != "training":
            return
        # Steps since this process of rank 0 began, so that every fault meets a run that goes.
        first = attempt_step.setdefault(beat["pid"], beat["step"])
        fault = faults[0]
        if time.monotonic() - started < fault.get("at_s", 0) or beat["step"] - first < fault["after_steps"]:
            return
        faults.pop(0)
        append_line(path / FAULTS, {**fault, "time": time.time(), "step": beat["step"]})
        os.kill(workers[fault["rank"]].pid, getattr(signal, fault["signal"]))

    with RunDirectory(path).lock() as lock:
        run, _ = prepare.start("gpt-demo", asked["sets"], path)
        supervisor = Supervisor(run, lock)
        supervisor.on_poll = strike
        try:
            supervisor.supervise()
        except SeedbedError as error:
            print(error, file=sys.stderr)
            return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main(json.loads(sys.argv[1])))
