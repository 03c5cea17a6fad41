"""The controller of a cluster: one detached actor that starts the supervisors of runs in turn.

All it knows is in files: the queue's entries, and in each run directory its status and what its supervisor
wrote. A controller that dies is started again by Ray, and goes on from them.
"""

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from cluster.placement import Host, decide, take
from cluster.queue import RECORD, Entry, Queue
from cluster.ray_actors import birth_of, same_process
from cluster.ray_connect import NAMESPACE
from cluster.ray_hosts import group_owner, hosts
from cluster.ray_local import MARK
from seedbed.errors import EXIT_OTHER, EXIT_PREEMPTED, EXIT_TRAINING, SeedbedError, UsageError
from seedbed.files import write_json
from training.checkpoint.layout import list_steps
from training.run_directory import TERMINAL_STATES, RunDirectory, read_json

NAME = "controller"
EVERY_S = 0.25
END_RUNS_S = 30.0
"""For the supervisors of a cluster that is going down to say their last word."""
MAX_STARTS = 10
"""Supervisors of a run in a row that may die by a signal without a new checkpoint."""


class Controller:
    """Looks at queue and supervisors four times a second."""

    def __init__(self, folder: str, address: str) -> None:
        import ray

        self.ray, self.address = ray, address
        self.queue = Queue(Path(folder))
        self.host = ray.util.get_node_ip_address()
        self.problem = ""
        self._wake = threading.Event()
        self._said: dict[str, str] = {}
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="controller", daemon=True)
        self._thread.start()

    def submit(self, entry: dict[str, Any]) -> None:
        """Take a run into the queue."""
        with self._lock:
            self.queue.put(Entry(**entry))
        self._wake.set()

    def stop(self, run: str, now: bool) -> None:
        """Ask a run to stop, for who does not see its directory."""
        RunDirectory.existing(Path(run)).request_stop(now=now)
        self._wake.set()

    def state(self) -> dict[str, Any]:
        """{"host", "folder", "problem": of the last look, "runs": [{id, run, priority, waits, pid}]}."""
        runs = [
            {
                "id": e.id,
                "run": e.run,
                "priority": e.priority,
                "pid": e.pid,
                "waits": self._said.get(e.id, ""),
            }
            for e in self.queue.entries()
        ]
        return {"host": self.host, "folder": str(self.queue.folder), "problem": self.problem, "runs": runs}

    def watch(self, run: str) -> dict[str, Any]:
        """What `cluster.watch.run_status` says of a run, for who does not see its directory."""
        from cluster.watch import run_status

        return run_status(Path(run))

    def read(self, run: str, offsets: dict[str, int], names: list[str] | None) -> dict[str, Any]:
        """New lines of a run's logs, see `cluster.run_logs.new_lines`."""
        from cluster.run_logs import new_lines

        return new_lines(RunDirectory.existing(Path(run)).path, offsets, names)

    def start_offsets(self, run: str, since: float) -> dict[str, int]:
        """See `cluster.run_logs.offsets_at`."""
        from cluster.run_logs import offsets_at

        return offsets_at(RunDirectory.existing(Path(run)).path, since)

    def _work(self) -> None:
        while True:
            try:
                with self._lock:
                    self.look()
                self.problem = ""
            except Exception as error:
                # The next look may go better, and without one nothing would be started any more.
                self.problem = f"{type(error).__name__}: {error}"
                print(self.problem, file=sys.stderr, flush=True)
            self._wake.wait(EVERY_S)
            self._wake.clear()

    def look(self) -> None:
        """See to supervisors that ended, then start those whose turn it is."""
        entries = self.queue.entries()
        for entry in entries:
            if entry.pid:
                self._see_to(entry)
            elif entry.run_path.is_dir() and RunDirectory(entry.run_path).stop_requested():
                self._end(entry, "preempted", "stopped while it waited in the queue")
        waiting = self.queue.waiting()
        if not waiting:
            return
        free = self._free(entries)
        line = [(entry.id, entry.priority, entry.wants()) for entry in waiting]
        by_id = {entry.id: entry for entry in waiting}
        starting, reasons = decide(line, free)
        for name in starting:
            self._start(by_id[name])
        for name, reason in reasons.items():
            self._say(by_id[name], reason)

    def _free(self, entries: list[Entry]) -> list[Host]:
        """What runs that start, for the first time or again, will take is taken."""
        table = self.ray.util.placement_group_table()
        placed = {group_owner(group["name"]) for group in table.values() if group["state"] == "CREATED"}
        free = hosts(self.ray, table=table)
        for entry in entries:
            if entry.pid and entry.id not in placed and (size := entry.wants().largest(free)):
                free = take(free, entry.wants(), size)
        return free

    def _say(self, entry: Entry, reason: str) -> None:
        """Why a run waits, where `status` finds it; written when it changes."""
        if self._said.get(entry.id) != reason:
            self._said[entry.id] = reason
            RunDirectory(entry.run_path).write_status(
                "queued", max(list_steps(entry.run_path), default=0), reason
            )

    def _start(self, entry: Entry) -> None:
        run = RunDirectory(entry.run_path)
        self._said.pop(entry.id, None)
        (run.path / RECORD).unlink(missing_ok=True)
        newest = max(list_steps(run.path), default=-1)
        entry.starts = entry.starts + 1 if newest == entry.newest_step else 1
        entry.newest_step = newest
        if entry.starts > MAX_STARTS:
            return self._end(
                entry, "failed", f"its supervisor died {MAX_STARTS} times without a new checkpoint"
            )
        run.write_status("starting", max(newest, 0), "its supervisor is starting")
        command = [sys.executable, "-P", "-m", "cluster.ray_supervisor", str(run.path)]
        command += ["--address", self.address, "--host", self.host, "--queue", str(self.queue.folder)]
        entry.pid = start_detached(command, run.path / "logs" / "supervisor.log", entry.code)
        entry.birth = birth_of(entry.pid)
        self.queue.put(entry)
        return None

    def _see_to(self, entry: Entry) -> None:
        """What became of a supervisor; one that was killed is started again, in its turn."""
        if same_process(entry.pid, entry.birth):
            return None
        run = RunDirectory(entry.run_path)
        if not run.path.is_dir():
            return self.queue.remove(entry)
        if read_json(run.path / RECORD).get("code") is not None:
            return self.queue.remove(entry)
        if run.stop_requested() == 2:
            return self._end(entry, "preempted", "stopped at once")
        run.event("supervisor_died", f"the supervisor (process {entry.pid}) died; it is started again")
        entry.pid, entry.birth = 0, ""
        self.queue.put(entry)
        self._wake.set()
        return None

    def _end(self, entry: Entry, state: str, message: str) -> None:
        run = RunDirectory(entry.run_path)
        if run.path.is_dir() and run.status()["state"] not in TERMINAL_STATES:
            run.event(state, message)
            steps = list_steps(run.path)
            run.write_status(state, max(steps, default=0), message)
            stopped = EXIT_PREEMPTED if steps else EXIT_OTHER
            code = stopped if state == "preempted" else EXIT_TRAINING
            write_json(run.path / RECORD, {"host": self.host, "code": code, "ended": time.time()})
        self.queue.remove(entry)


def start_detached(command: list[str], log: Path, code: str) -> int:
    """Start a process that outlives this one, and whatever Ray does to this one's children; its id."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if name != MARK}
    # The shell ends at once, so that the process becomes a child of init.
    script = 'log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & echo $!'
    answer = subprocess.run(
        ["/bin/sh", "-c", script, "sh", str(log), *command],
        env={**environment, "PYTHONPATH": code},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        timeout=30,
        check=True,
        start_new_session=True,
    )
    return int(answer.stdout)


def find_controller(ray: Any) -> Any | None:
    """The cluster's controller, None when it has none."""
    try:
        return ray.get_actor(NAME, namespace=NAMESPACE)
    except ValueError:
        return None


def end_runs(ray: Any, *, now: bool) -> None:
    """Stop what runs on a cluster that is going down, and what waits for it; UsageError unless it is
    `now`."""
    controller = find_controller(ray)
    if controller is None:
        return
    runs = ask(ray, controller.state.remote())["runs"]
    if runs and not now:
        raise UsageError(
            f"{len(runs)} run(s) are on it, or wait for it: {', '.join(run['run'] for run in runs)}",
            "seedbed stop each of them; or say --now",
        )
    for run in runs:
        # One whose directory is gone has nobody to be stopped.
        with contextlib.suppress(SeedbedError):
            ask(ray, controller.stop.remote(run["run"], True))
    deadline = time.monotonic() + END_RUNS_S
    while runs and time.monotonic() < deadline:
        time.sleep(EVERY_S)
        runs = ask(ray, controller.state.remote())["runs"]
    if runs:
        raise SeedbedError(
            f"{len(runs)} run(s) did not end in {END_RUNS_S:g} s: {', '.join(run['run'] for run in runs)}"
        )


def get_controller(ray: Any, folder: Path, address: str) -> Any:
    """The cluster's controller, started on the head when there is none; its queue is then in `folder`."""
    found = find_controller(ray)
    if found is not None:
        return found
    head = next(
        node for node in ray.nodes() if node["Alive"] and "node:__internal_head__" in node["Resources"]
    )
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(head["NodeID"], soft=False)
    return (
        ray.remote(Controller)
        .options(
            name=NAME,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=3,
            max_concurrency=16,
            scheduling_strategy=strategy,
        )
        .remote(str(folder), address)
    )


def ask(ray: Any, call: Any, timeout_s: float = 20.0) -> Any:
    """The answer to a call of the controller; raises SeedbedError when none comes."""
    try:
        return ray.get(call, timeout=timeout_s)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, SeedbedError):
            raise cause from None
        raise SeedbedError(f"the controller failed: {cause}", "see `seedbed cluster status`") from None
    except ray.exceptions.RayError as error:
        with contextlib.suppress(Exception):
            error = error.__class__(str(error).splitlines()[0])
        raise SeedbedError(
            f"the cluster's controller does not answer: {error}", "try again in a moment"
        ) from None
