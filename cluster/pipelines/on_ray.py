"""A stage that trains, on a Ray cluster: `python -P -m cluster.pipelines.on_ray RECIPE --run-dir RUN ...`.

Takes what `seedbed train` takes of a stage, and ends as it would: submitted when there is no such run yet,
resumed when it stopped, waited for when it is on its way, whoever had asked for that. The run is the
cluster's: it goes on when this process is killed, and the next one waits for it again.
"""

import argparse
import contextlib
import fcntl
import signal
import sys
import time
from pathlib import Path
from typing import Any

from cluster import submission
from cluster.output import emit, note, reporting
from cluster.queue import FOLDER as QUEUE
from cluster.ray_connect import connect
from cluster.ray_controller import get_controller
from cluster.run_access import find_run, follow, wait_until_over
from cluster.run_summary import summarize_run
from training.run_directory import TERMINAL_STATES, RunDirectory, is_run, read_json

QUIET_S = 5.0
"""How long nobody holds a run that is not over, until it is taken to be nobody's."""
AGAIN = ("run.pause_at", "tracking.mlflow")
"""Settings that may differ from those that a run was submitted with."""


def attend(options: argparse.Namespace) -> int:
    """Have the run be trained, and wait for its end; its exit code."""
    path = Path(options.run_dir).absolute()
    ray = connect(options.address)
    # One queue for all, beside their places.
    get_controller(ray, path.parent.parent / QUEUE, options.address)
    run = RunDirectory(path)
    if not is_run(path):
        asked = submission.Ask(options.address)
        submission.submit(options.recipe, options.set, path, options.init_from, asked, options.branch_from)
    elif run.status()["state"] != "finished" and _is_nobodys(run):
        again = [one for one in options.set if one.startswith(AGAIN)]
        submission.resume(run, again, options.address)
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGTERM, lambda *_: run.request_stop(now=False))
    access = find_run(str(path))
    follow(access, ["supervisor"], {}, lambda line: note(line["line"]), to_the_end=True)
    status = wait_until_over(access)
    ray.shutdown()
    code = status["exit_code"]
    if status["state"] == "finished":
        emit({**summarize_run(path), "plan": read_json(run.plan_path)}, json=True, render=str)
    return 0 if code is None else int(code)


def _is_nobodys(run: RunDirectory) -> bool:
    """Whether no supervisor has it, and none is about to."""
    if run.status()["state"] == "queued":
        return False
    deadline = time.monotonic() + (0 if run.status()["state"] in TERMINAL_STATES else QUIET_S)
    while True:
        with open(run.path / "run.lock", "a", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        if time.monotonic() > deadline:
            return True
        time.sleep(0.2)


def _arguments(words: list[str] | None = None) -> Any:
    parser = argparse.ArgumentParser(prog="python -P -m cluster.pipelines.on_ray")
    parser.add_argument("recipe")
    parser.add_argument("--run-dir", required=True)
    parser.add_argument("--init-from", type=Path)
    parser.add_argument("--branch-from", type=Path)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--address", required=True)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(words)


def main() -> int:
    """The process of one stage."""
    options = _arguments()
    with reporting(json=True):
        return attend(options)


if __name__ == "__main__":
    sys.exit(main())
