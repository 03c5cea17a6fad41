"""The MLflow mirror as a process beside the run: started, waited for, never in the way.

`python -P -m training.tracking RUN_DIR --uri URI --experiment NAME` follows a run's records and copies
them (`training.mirror`). The trainer starts it and otherwise shares nothing with it but files: a server
that is slow, down or refuses everything costs a run nothing. After a run, `--replay` sends what is missing.
"""

import argparse
import fcntl
import importlib.util
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from seedbed.errors import EXIT_OK, EXIT_OTHER, UsageError
from training.run_directory import TERMINAL_STATES, read_json

DRAIN_S = 60.0
OF_A_RUN = "training.tracking"
LOWEST_PRIORITY = 19
# MLflow reads these when it is imported. Waiting and retrying is `training.mirror`'s, so that one
# request is one attempt and a short one; nothing is deserialised, executed or reported to anyone.
ENVIRONMENT = {
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT": "30",
    "GIT_PYTHON_REFRESH": "quiet",
    "OMP_NUM_THREADS": "1",
}
UNSET = ("MLFLOW_ENABLE_ASYNC_LOGGING", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")

Ending = Callable[[], tuple[str, float | None] | None]


def default_uri(run_dir: Path) -> str:
    """One SQLite file for all runs of a folder."""
    return f"sqlite:///{run_dir.resolve().parent / 'mlflow.db'}"


def unavailable() -> str | None:
    """Why nothing can be mirrored here, or None. Looks for MLflow without importing it."""
    try:
        found = importlib.util.find_spec("mlflow")
    except ImportError:
        found = None
    if found is None:
        return "MLflow is not installed: pip install 'seedbed[mlflow]'"
    return None


def start_mirror(
    run_dir: Path, uri: str, experiment: str, module: str = OF_A_RUN
) -> subprocess.Popen[bytes] | None:
    """Start to follow `run_dir`, for as long as this process or the run goes on; never raises.

    `module` is whose `main` does so: of more than one run, it is another one than this.

    None means that nothing is mirrored: `unavailable()` says why, or the line that this prints when the
    process cannot be started. Output goes to `logs/tracking.log`. The mirror has a session of its own:
    Ctrl-C is for the trainer.
    """
    if unavailable() is not None:
        return None
    try:
        arguments = ["--parent-pid", str(os.getpid()), "--started", repr(time.time())]
        return _launch(run_dir, uri, experiment, arguments, module)
    except OSError as error:
        print(f"! the MLflow mirror cannot be started: {error}", file=sys.stderr)
        return None


def finish_mirror(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Wait for the last rows, at most `timeout_s`, then end the mirror. Returns whether all were sent.

    To be called after `status.json` holds the run's final state. What was not sent, `replay` sends.
    """
    try:
        return process.wait(timeout_s) == EXIT_OK
    except subprocess.TimeoutExpired:
        process.kill()  # safe at any moment, as its position is saved after the rows are
        process.wait()
        return False


def replay(
    run_dir: Path, uri: str, experiment: str, *, drain_s: float = DRAIN_S, module: str = OF_A_RUN
) -> bool:
    """Send what a run's mirror did not, or all of it to another server. Returns whether all was sent.

    Raises UsageError without MLflow.
    """
    if (reason := unavailable()) is not None:
        raise UsageError(reason, "pip install 'seedbed[mlflow]'")
    process = _launch(run_dir, uri, experiment, ["--replay", "--drain-s", repr(drain_s)], module)
    return process.wait() == EXIT_OK


def _launch(
    run_dir: Path, uri: str, experiment: str, more: list[str], module: str
) -> subprocess.Popen[bytes]:
    log_path = run_dir / "logs" / "tracking.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    arguments = [str(run_dir.resolve()), "--uri", uri, "--experiment", experiment, *more]
    with open(log_path, "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _is_alive(pid: int, *, is_parent: bool) -> bool:
    # A process that died and was not waited for still answers signals; a child knows better.
    if is_parent:
        return os.getppid() == pid
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def ending_of(run_dir: Path, *, parent_pid: int | None, started: float) -> Ending:
    """How a mirror learns that its run is over: from `status.json`, or by its parent's death.

    A final state from before `started` is that of an earlier session of the same run.
    """
    is_parent = parent_pid is not None and os.getppid() == parent_pid

    def ending() -> tuple[str, float | None] | None:
        status = read_json(run_dir / "status.json")
        ended = float(status.get("time") or 0.0)
        if status.get("state") in TERMINAL_STATES and ended >= started:
            return str(status["state"]), ended
        if parent_pid is not None and not _is_alive(parent_pid, is_parent=is_parent):
            return "preempted", None
        return None

    return ending


def ending_now(run_dir: Path) -> Ending:
    """For a replay: the run is as far as it is."""
    status = read_json(run_dir / "status.json")
    return lambda: (str(status.get("state", "unknown")), status.get("time"))


@contextmanager
def _only_mirror(run_dir: Path, ending: Ending, drain_s: float) -> Iterator[bool]:
    """True once no other mirror of this run is left; False when one outlasts the run and the drain."""
    with open(run_dir / "tracking.lock", "w", encoding="utf-8") as file:
        deadline: float | None = None
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if deadline is None and ending() is not None:
                    deadline = time.monotonic() + drain_s
                if deadline is not None and time.monotonic() > deadline:
                    yield False
                    return
                time.sleep(0.5)
            else:
                yield True
                return


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -P -m training.tracking", description="Mirror a run to MLflow."
    )
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--uri", help="MLflow tracking address (default: an SQLite file beside the run)")
    parser.add_argument("--experiment", default="seedbed")
    parser.add_argument("--replay", action="store_true", help="send what there is, and end")
    parser.add_argument("--parent-pid", type=int, help="end when this process is gone")
    parser.add_argument("--started", type=float, default=0.0, help="ignore ends of the run before this time")
    parser.add_argument(
        "--drain-s", type=float, default=DRAIN_S, help="seconds for a silent server at the end"
    )
    return parser.parse_args()


def main(make: Callable[[Path, str, str], Any] | None = None) -> int:
    """Follow one run, or what `make(folder, uri, experiment)` copies; exit code 0 when all has been sent."""
    arguments = _arguments()
    run_dir: Path = arguments.run_dir
    os.nice(LOWEST_PRIORITY)
    os.environ.update(ENVIRONMENT)
    for name in UNSET:
        os.environ.pop(name, None)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    ending = (
        ending_now(run_dir)
        if arguments.replay
        else ending_of(run_dir, parent_pid=arguments.parent_pid, started=arguments.started)
    )
    with _only_mirror(run_dir, ending, arguments.drain_s) as is_only:
        if not is_only:
            logging.error("another mirror of %s is still at work", run_dir)
            return EXIT_OTHER
        from training.mirror import Mirror, follow

        mirror = (make or Mirror)(run_dir, arguments.uri or default_uri(run_dir), arguments.experiment)
        if follow(mirror, ending, arguments.drain_s):
            return EXIT_OK
        logging.error("not everything was sent within %s s: run again with --replay", arguments.drain_s)
        return EXIT_OTHER


if __name__ == "__main__":
    sys.exit(main())
