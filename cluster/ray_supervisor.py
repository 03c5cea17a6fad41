"""The supervisor of a submitted run: `python -P -m cluster.ray_supervisor`, started by the controller.

A process of its own, which is a driver of the cluster for as long as it lives: when it dies, Ray ends the
actors of its workers, and the controller starts another one.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import IO, Any

from cluster.output import note
from cluster.queue import RECORD, SUBMISSION, Queue
from cluster.ray_actors import own_pid_and_birth
from cluster.ray_connect import connect
from cluster.ray_launcher import RayLauncher
from cluster.run_logs import LogIndex
from cluster.runner import run_supervised
from seedbed.errors import EXIT_OK, EXIT_OTHER, SeedbedError, UsageError
from seedbed.files import write_json
from training.run_directory import RunDirectory, read_json
from training.supervisor import Supervisor

LOCK_S = 20.0


def supervise(options: argparse.Namespace) -> int:
    """Run the run to its end; the exit code says how it ended, and is written down for the controller."""
    run = RunDirectory.existing(Path(options.run_dir))
    with _lock(run) as lock:
        pid, birth = own_pid_and_birth()
        record: dict[str, Any] = {"pid": pid, "birth": birth, "host": options.host, "code": None}
        write_json(run.path / RECORD, record)
        ray = connect(options.address, options.host)
        queue = Queue(Path(options.queue))
        launcher = RayLauncher(ray, run, read_json(run.path / SUBMISSION), lambda: bool(queue.waiting()))
        supervisor = Supervisor(run, lock, launcher)
        index = LogIndex(run.path)
        supervisor.on_poll = lambda _: index.note()
        code = EXIT_OK
        try:
            run_supervised(supervisor, run)
        except SeedbedError as error:
            note(f"error: {error}")
            code = error.exit_code
        except ray.exceptions.RayError as error:
            # The cluster went away below the run, which is no fault of the run's: it can be resumed.
            note(f"error: the cluster was lost: {error}")
            code = EXIT_OTHER
        finally:
            launcher.close()
        write_json(run.path / RECORD, {**record, "code": code, "ended": time.time()})
        ray.shutdown()
    return code


def _lock(run: RunDirectory) -> IO[str]:
    """The run's lock, which a predecessor that is being killed may hold for a moment more."""
    deadline = time.monotonic() + LOCK_S
    while True:
        try:
            return run.lock()
        except UsageError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -P -m cluster.ray_supervisor", description=__doc__)
    parser.add_argument("run_dir")
    parser.add_argument("--address", required=True, help="the cluster's HOST:PORT")
    parser.add_argument("--host", required=True, help="this node's own address")
    parser.add_argument("--queue", required=True, help="the folder of the cluster's queue")
    try:
        return supervise(parser.parse_args())
    except SeedbedError as error:
        note(f"error: {error}")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
