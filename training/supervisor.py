"""The only restarter: starts the workers of a run, replaces them when they die, and knows when to stop."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from seedbed.errors import (
    EXIT_DATA,
    EXIT_OK,
    EXIT_PREEMPTED,
    EXIT_TRAINING,
    EXIT_USAGE,
    Preempted,
    SeedbedError,
    TrainingError,
)
from training.checkpoint.layout import list_steps
from training.config import Config
from training.console import Console
from training.devices import threads_per_rank
from training.launch import Launcher, LocalLauncher, Worker, WorkerSpec
from training.metrics import read_events
from training.run_directory import RunDirectory, read_json
from training.tail import Tail

POLL_S = 0.1
STOP_GRACE_S = 120.0
NO_PROGRESS_RESTARTS = 3
# Nothing is gained by running these again: the same thing would happen.
FINAL_CODES = (EXIT_OK, EXIT_USAGE, EXIT_DATA, EXIT_TRAINING, EXIT_PREEMPTED)


class Supervisor:
    """Runs `engine.num_ranks` workers until the run is finished, stopped or given up."""

    def __init__(self, run: RunDirectory, lock: IO[str], launcher: Launcher | None = None) -> None:
        self.run, self.lock = run, lock
        self.config: Config = run.config()
        self.launcher = launcher or LocalLauncher()
        self.console = Console(self.config)
        self.on_poll: Callable[[list[Worker]], None] | None = None
        """Called while workers run; what a demonstration or a test uses to reach them."""
        self._workers: list[Worker] = []
        self._stop_requests = 0

    def supervise(self) -> None:
        """Returns when the last step is saved; raises Preempted, TrainingError or another SeedbedError."""
        previous = {s: signal.signal(s, self._request_stop) for s in (signal.SIGTERM, signal.SIGINT)}
        self.run.event("session_started", "supervisor started", pid=os.getpid())
        tails = (Tail(self.run.events_path), Tail(self.run.metrics_path))
        try:
            self._restart_until_done(tails)
        except SeedbedError as error:
            state = "preempted" if isinstance(error, Preempted) else "failed"
            self._end(state, error.message)
            raise
        except BaseException:
            self._end("failed", "the supervisor was interrupted")
            raise
        finally:
            for worker in self._workers:
                worker.kill()
            self._show(tails)
            self.console.close()
            for number, handler in previous.items():
                signal.signal(number, handler)
        self._end("finished", "")

    def _end(self, state: str, message: str) -> None:
        step = int(read_json(self.run.heartbeat_path(0)).get("step", 0))
        try:
            self.run.event(state, message or f"finished at step {step}", step=step)
            self.run.write_status(state, step, message)
        except OSError:
            # With the disk full the outcome still reaches the user through the exit code.
            return

    def _request_stop(self, *_: Any) -> None:
        self._stop_requests += 1

    def _restart_until_done(self, tails: tuple[Tail, Tail]) -> None:
        restarts = fruitless = 0
        while True:
            before = self._newest_step()
            attempt = self._next_attempt()
            died = self._run_attempt(attempt, tails)
            if died is None:
                return
            worker, code = died
            self._raise_if_final(worker, code)
            fruitless = 0 if self._newest_step() > before else fruitless + 1
            reason = _death(worker, code)
            rank = _rank_of(worker)
            self.run.event(
                "worker_died",
                f"{reason} (see {self.run.log_path(rank)})",
                rank=rank,
                code=code,
                attempt=attempt,
            )
            if fruitless > NO_PROGRESS_RESTARTS or restarts >= self.config.run.max_restarts:
                raise TrainingError(
                    f"given up after {restarts} restart(s), the last {fruitless} attempt(s) without a new "
                    f"checkpoint; last: {reason}{self._last_words(rank)}",
                    f"read {self.run.log_path(rank)}; once the cause is mended, --resume {self.run.path}",
                )
            restarts += 1
            self.run.event(
                "restarted",
                f"restarting all ranks from step {max(0, self._newest_step())} (restart {restarts})",
                restart=restarts,
            )

    def _newest_step(self) -> int:
        return max(list_steps(self.run.path), default=-1)

    def _next_attempt(self) -> int:
        started = [e for e in read_events(self.run.path) if e.get("kind") == "attempt_launched"]
        attempt = len(started)
        self.run.event("attempt_launched", f"launching attempt {attempt}", attempt=attempt)
        return attempt

    def _run_attempt(self, attempt: int, tails: tuple[Tail, Tail]) -> tuple[Worker, int] | None:
        """Run all ranks to their end; None when they finished, else who died first, and how."""
        self.run.write_status("starting", max(0, self._newest_step()))
        for path in (self.run.path / "heartbeats").glob("*.json"):
            path.unlink(missing_ok=True)
        rendezvous = self.run.path / "rendezvous.json"
        rendezvous.unlink(missing_ok=True)
        ranks = range(self.config.engine.num_ranks)
        self._workers = [self.launcher.start(self._spec(rank, attempt, rendezvous)) for rank in ranks]
        stop_sent = 0
        deadline = float("inf")
        while True:
            codes = [worker.poll() for worker in self._workers]
            self._show(tails)
            bad = [(w, c) for w, c in zip(self._workers, codes, strict=True) if c not in (None, 0)]
            if bad and not (all(c == EXIT_PREEMPTED for _, c in bad) and None in codes):
                return self._first_cause(bad)
            if all(code == 0 for code in codes):
                return None
            if self._stop_requests > stop_sent:
                stop_sent = self._stop_requests
                deadline = min(deadline, time.monotonic() + STOP_GRACE_S)
                if stop_sent > 1 or time.monotonic() > deadline:
                    raise Preempted(f"stopped at once; the newest checkpoint is step {self._newest_step()}")
                self.console.line("stopping: saving a checkpoint first (again to stop at once)")
                for worker in self._workers:
                    worker.terminate()
            if time.monotonic() > deadline:
                raise Preempted(
                    f"no save within {STOP_GRACE_S:.0f} s; the newest is step {self._newest_step()}"
                )
            if self.on_poll is not None:
                self.on_poll(self._workers)
            time.sleep(POLL_S)

    def _first_cause(self, bad: list[tuple[Worker, int]]) -> tuple[Worker, int]:
        """Of the workers that died, the one that the others died of.

        By a signal, by an explained error, or else by the error that came first: a rank whose fellow is
        gone fails in its next collective.
        """
        for worker in self._workers:
            worker.kill()
        killed = [(w, c) for w, c in bad if c < 0]
        explained = [(w, c) for w, c in bad if c in FINAL_CODES]
        return min(killed or explained or bad, key=lambda death: self._failed_at(death[0]))

    def _failed_at(self, worker: Worker) -> float:
        return float(read_json(self.run.heartbeat_path(_rank_of(worker))).get("failed_at", float("inf")))

    def _raise_if_final(self, worker: Worker, code: int) -> None:
        if self._stop_requests or code == EXIT_PREEMPTED:
            newest = self._newest_step()
            saved = f"step {newest} is saved" if newest >= 0 else "nothing had been saved yet"
            raise Preempted(f"stopped; {saved}", f"go on with: seedbed train --resume {self.run.path}")
        if code in FINAL_CODES:
            rank = _rank_of(worker)
            words = read_json(self.run.heartbeat_path(rank)).get("error", "")
            message, _, fix = words.partition("\n  fix: ")
            error = SeedbedError(message or _death(worker, code), fix or f"read {self.run.log_path(rank)}")
            error.exit_code = code
            raise error

    def _last_words(self, rank: int) -> str:
        words = read_json(self.run.heartbeat_path(rank)).get("error", "")
        return f": {words.splitlines()[0]}" if words else ""

    def _spec(self, rank: int, attempt: int, rendezvous: Path) -> WorkerSpec:
        engine = self.config.engine
        environment = {"OMP_NUM_THREADS": str(threads_per_rank(engine)), "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
        if engine.device == "cpu":
            environment["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
        arguments = {
            "--run-dir": self.run.path,
            "--rank": rank,
            "--attempt": attempt,
            "--rendezvous": rendezvous,
            "--parent-pid": os.getpid(),
        }
        return WorkerSpec(
            name=f"rank-{rank}",
            module="training.worker",
            arguments=[str(part) for pair in arguments.items() for part in pair],
            log=self.run.log_path(rank),
            environment=environment,
            inherited_files=(self.lock.fileno(),),
        )

    def _show(self, tails: tuple[Tail, Tail]) -> None:
        events, metrics = tails
        for event in events.rows():
            self.console.event(event)
        for row in metrics.rows():
            self.console.row(row)


def _rank_of(worker: Worker) -> int:
    return int(worker.name.removeprefix("rank-"))


def _death(worker: Worker, code: int) -> str:
    if code < 0:
        return f"{worker.name} was killed by {signal.Signals(-code).name}"
    return f"{worker.name} ended with exit code {code}"
