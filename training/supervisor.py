"""The only restarter: starts the workers of a run, replaces them when they die, and knows when to stop."""

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from seedbed.errors import (
    EXIT_CORRUPTED,
    EXIT_DATA,
    EXIT_OK,
    EXIT_PREEMPTED,
    EXIT_ROLLED_BACK,
    EXIT_TRAINING,
    EXIT_USAGE,
    DataError,
    Preempted,
    SeedbedError,
    StoppedUnsaved,
    TrainingError,
    UsageError,
)
from training.checkpoint.layout import list_steps
from training.config import Config
from training.console import Console
from training.devices import threads_per_rank
from training.fence import open_attempt
from training.goodput import account, save_costs, time_by_cause, told_saves
from training.hangs import Hang, HangWatch
from training.launch import Launcher, LocalLauncher, Worker, WorkerSpec
from training.metrics import read_events, surviving_rows
from training.out_of_memory import explained, kernel_kills
from training.resize import resized
from training.run_directory import RunDirectory, read_json
from training.tail import Tail

POLL_S = 0.1
SAME_REQUEST_S = 1.0
LOOK_FOR_STOP_S = 0.5
# Nothing is gained by running these again: the same thing would happen.
FINAL_CODES = (EXIT_OK, EXIT_USAGE, EXIT_DATA, EXIT_TRAINING, EXIT_PREEMPTED)
# What a worker that ended with one of them has raised.
RAISED = {kind.exit_code: kind for kind in (UsageError, DataError, TrainingError)}


@dataclass(frozen=True)
class Stopping:
    """A stop that workers were asked for: until when, and how many requests it answers."""

    deadline: float
    requests: int


class Ended(NamedTuple):
    """How an attempt ended that did not finish."""

    worker: Worker
    code: int
    hang: tuple[str, str] | None = None
    """What hung, and what to do about it."""


class Supervisor:
    """Runs the workers of a run until the run is finished, stopped or given up."""

    def __init__(self, run: RunDirectory, lock: IO[str], launcher: Launcher | None = None) -> None:
        self.run, self.lock = run, lock
        self.config: Config = run.config()
        self.launcher = launcher or LocalLauncher()
        self.console = Console(self.config)
        self.on_poll: Callable[[list[Worker]], None] | None = None
        """Called while workers run; what a demonstration or a test uses to reach them."""
        self._workers: list[Worker] = []
        self._stop_requests = 0
        self._started = time.monotonic()
        self._last_stop_request = -SAME_REQUEST_S
        self._looked_for_stop = 0.0
        self._is_stop_now = False
        self._is_growing = False
        """Whether workers were asked to stop so that more of them can go on."""

    def supervise(self) -> None:
        """Returns when the last step is saved; raises Preempted, TrainingError or another SeedbedError."""
        previous = {s: signal.signal(s, self._request_stop) for s in self._stop_signals()}
        tails = (Tail(self.run.events.path), Tail(self.run.metrics.path))
        state, message = "failed", "the supervisor was interrupted"
        try:
            self._restart_until_done(tails)
            state, message = "finished", ""
        except SeedbedError as error:
            state, message = "failed", error.message
            if isinstance(error, (Preempted, StoppedUnsaved)):
                state = "preempted"
            raise
        finally:
            # First the workers, then the last word on how the run ended.
            for worker in self._workers:
                worker.kill()
            step = int(read_json(self.run.heartbeat_path(0)).get("step", 0))
            # Where checkpoints cannot be looked at either, that must not hide how the run ended.
            with contextlib.suppress(OSError):
                step = max(step, self._newest_step())
            self.run.event(state, message or f"finished at step {step}", step=step)
            self.run.write_status(state, step, message)
            self._show(tails)
            # It is for show: a record that cannot be read must not hide how the run ended.
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                self.console.line(account(time_by_cause(self.run.path)))
                if told := told_saves(save_costs(surviving_rows(self.run.path))):
                    self.console.line(told)
            self.console.close()
            for number, handler in previous.items():
                signal.signal(number, handler)

    @staticmethod
    def _stop_signals() -> list[signal.Signals]:
        """A closed terminal is a stop like any other, unless the user said nohup."""
        hangup = [] if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else [signal.SIGHUP]
        return [signal.SIGTERM, signal.SIGINT, *hangup]

    def _request_stop(self, *_: Any) -> None:
        # One Ctrl-C can reach this process twice, from the terminal and from a parent.
        if time.monotonic() - self._last_stop_request > SAME_REQUEST_S:
            self._stop_requests += 1
        self._last_stop_request = time.monotonic()

    def _restart_until_done(self, tails: tuple[Tail, Tail]) -> None:
        restarts: Counter[str] = Counter()
        fruitless = 0
        while True:
            before = self._newest_step()
            self._make_room()
            attempt, kills_before = self._next_attempt(), kernel_kills()
            ended = self._run_attempt(attempt, tails)
            if ended is None:
                return
            worker, code, hang = ended
            if code == EXIT_ROLLED_BACK:
                # Said by rank 0 already, and counted by the guards.
                continue
            if code == EXIT_PREEMPTED and self._is_growing and not self._stop_requests:
                continue
            self._raise_if_final(worker, code)
            fruitless = 0 if self._newest_step() > before else fruitless + 1
            reason, remedy = hang or self._explained(worker, code, kills_before)
            cause = _cause(code, bool(hang))
            self._tell_death(worker, code, attempt, cause, reason)
            budget = getattr(self.config.restarts, cause)
            is_over = restarts[cause] >= budget or restarts.total() >= self.config.run.max_restarts
            if is_over or fruitless > self.config.restarts.without_progress:
                words = "" if hang or code == EXIT_CORRUPTED else self._last_words(_rank_of(worker))
                raise TrainingError(
                    f"given up after {restarts.total()} restart(s) ({cause}: {restarts[cause]} of {budget}), "
                    f"the last {fruitless} attempt(s) without a new checkpoint; last: {reason}{words}",
                    f"{remedy}; once the cause is mended, --resume {self.run.path}",
                )
            # The first restart is immediate; when nothing comes of it, storage or a host may need a moment.
            time.sleep(min(30.0, 2.0**fruitless - 2.0) if fruitless > 1 else 0.0)
            restarts[cause] += 1
            self.run.event(
                "restarted",
                f"restarting all ranks from step {max(0, self._newest_step())} (restart {restarts.total()}; "
                f"{cause}: {restarts[cause]} of {budget})",
                restart=restarts.total(),
                cause=cause,
            )

    def _make_room(self) -> None:
        """Have the launcher ready for an attempt; on another number of ranks, if it says so."""
        self._is_growing, before = False, self.config.engine.num_ranks
        num_beside = self.config.num_beside
        num_workers = self.launcher.make_room(self.config.num_workers, self._is_given_up)
        if not num_workers:
            raise self._stopped()
        if num_workers != before + num_beside:
            self.config = resized(self.run, self.config, num_workers - num_beside)

    def _is_given_up(self) -> bool:
        self._stop_if_asked()
        return self._stop_requests > 0

    def _tell_death(self, worker: Worker, code: int, attempt: int, cause: str, reason: str) -> None:
        rank = _rank_of(worker)
        self.run.event(
            "worker_died",
            f"{reason} (see {self.run.log_path(rank)})",
            rank=rank,
            code=code,
            attempt=attempt,
            cause=cause,
        )

    def _explained(self, worker: Worker, code: int, kills_before: int) -> tuple[str, str]:
        """(what a worker died of, what to do about it)."""
        death, rank = _death(worker, code), _rank_of(worker)
        if code == EXIT_CORRUPTED:
            return self._last_words(rank).removeprefix(": ") or death, "take its machine out of service"
        if code == -signal.SIGKILL and kernel_kills() > kills_before:
            error = explained(MemoryError(f"{death}, by the kernel"), self.config, rank)
            return error.message, error.fix
        return death, f"read {self.run.log_path(rank)}"

    def _newest_step(self) -> int:
        return max(list_steps(self.run.path), default=-1)

    def _next_attempt(self) -> int:
        started = [e for e in read_events(self.run.path) if e.get("kind") == "attempt_launched"]
        attempt = len(started)
        self._open(attempt)
        self.run.event("attempt_launched", f"launching attempt {attempt}", attempt=attempt)
        return attempt

    def _open(self, attempt: int) -> None:
        """Have the attempt be the run's newest, durably: a disk that is full for a while is waited for."""
        for wait_s in (2.0, 4.0, 8.0, 16.0, 30.0, None):
            try:
                open_attempt(self.run.path, attempt)
                return
            except OSError as error:
                if wait_s is None or self._stop_requests:
                    raise TrainingError(
                        f"{self.run.path} cannot be written, so no attempt can begin: {error.strerror}",
                        f"free space on its disk, or mend it; then --resume {self.run.path}",
                    ) from error
            time.sleep(wait_s)

    def _run_attempt(self, attempt: int, tails: tuple[Tail, Tail]) -> Ended | None:
        """Run all ranks to their end; None when they finished, else who died first, or hung, and how."""
        self.run.write_status("starting", max(0, self._newest_step()))
        heartbeats = self.run.path / "heartbeats"
        # A run that was fetched from a copy has none yet.
        heartbeats.mkdir(exist_ok=True)
        for path in heartbeats.glob("*.json"):
            path.unlink(missing_ok=True)
        # A name of the attempt's own, where no worker of an older one can put its address.
        for path in self.run.path.glob("rendezvous-*.json"):
            path.unlink(missing_ok=True)
        rendezvous = self.run.path / f"rendezvous-{attempt}.json"
        self._workers = []
        for rank in range(self.config.num_workers):
            self._workers.append(self.launcher.start(self._spec(rank, attempt, rendezvous)))
        stopping: Stopping | None = None
        watch = HangWatch(self.run, self.config.timeouts, len(self._workers))
        while True:
            codes = [worker.poll() for worker in self._workers]
            self._show(tails)
            if all(code == 0 for code in codes):
                return None
            saving = None in codes and {code for code in codes if code} == {EXIT_PREEMPTED}
            if any(codes) and not saving:
                return Ended(*self._first_cause())
            if hang := watch.look(self._workers):
                return self._ended(hang)
            self._stop_if_asked()
            if self._stop_requests and stopping is None and not self._is_stop_now:
                stopping = Stopping(time.monotonic() + self.config.run.stop_grace_s, self._stop_requests)
                self.console.line("stopping: saving a checkpoint first (again to stop at once)")
                for worker in self._workers:
                    worker.terminate()
            if self._is_stop_now or (stopping and self._stop_requests > stopping.requests):
                raise self._stopped("at once")
            if stopping and time.monotonic() > stopping.deadline:
                raise self._stopped("without another save in time")
            if stopping is None and not self._is_growing and self.launcher.has_more_room():
                self._is_growing = True
                self.console.line("there is room for more ranks: saving, to go on with them")
                for worker in self._workers:
                    worker.terminate()
            if self.on_poll is not None:
                self.on_poll(self._workers)
            time.sleep(POLL_S)

    def _ended(self, hang: Hang) -> "Ended":
        """Write down what hung, and end all workers."""
        self.run.event("hang", hang.message, rank=hang.rank, silent_s=hang.silent_s, stacks=hang.stacks)
        for worker in self._workers:
            worker.kill()
        remedy = f"its stack, and those of the others, are in the event `hang` of {self.run.events.path}"
        return Ended(self._workers[hang.rank], -signal.SIGKILL, (hang.message, remedy))

    def _stop_if_asked(self) -> None:
        """Note a stop that was asked for by file, or by the job's time being over."""
        if time.monotonic() - self._looked_for_stop > LOOK_FOR_STOP_S:
            self._looked_for_stop = time.monotonic()
            asked = self.run.stop_requested()
            self._stop_requests += self._stop_requests < min(asked, 1)
            self._is_stop_now = asked > 1
        limit_s = self.config.timeouts.job_s
        if limit_s and not self._stop_requests and time.monotonic() - self._started > limit_s:
            self.console.line(f"{limit_s:g} s are over (timeouts.job_s)")
            self._stop_requests += 1

    def _first_cause(self) -> tuple[Worker, int]:
        """Of the workers that died, the one that the others died of.

        By a signal (but for SIGABRT, which libraries raise at a broken connection), by an explained
        error, or else by whatever came first: a rank whose fellow is gone fails in its next collective.
        """
        deadline = time.monotonic() + self.launcher.last_words_s
        while time.monotonic() < deadline:
            codes = [worker.poll() for worker in self._workers]
            if None not in codes or any(_is_kill(code) for code in codes):
                break
            time.sleep(POLL_S / 4)
        dead = [(worker, code) for worker in self._workers if (code := worker.poll())]
        for worker in self._workers:
            worker.kill()
        killed = [(w, c) for w, c in dead if _is_kill(c)]
        explained = [(w, c) for w, c in dead if c in FINAL_CODES]
        return min(killed or explained or dead, key=lambda death: self._failed_at(death[0]))

    def _failed_at(self, worker: Worker) -> float:
        return float(read_json(self.run.heartbeat_path(_rank_of(worker))).get("failed_at", float("inf")))

    def _raise_if_final(self, worker: Worker, code: int) -> None:
        if code in RAISED:
            rank = _rank_of(worker)
            words = read_json(self.run.heartbeat_path(rank)).get("error", "")
            message, _, fix = words.partition("\n  fix: ")
            raise RAISED[code](message or _death(worker, code), fix or f"read {self.run.log_path(rank)}")
        is_paused = code == EXIT_PREEMPTED and self._newest_step() == self.config.run.pause_at
        if self._stop_requests or is_paused:
            raise self._stopped()

    def _stopped(self, how: str = "") -> SeedbedError:
        """Exit code 5 says that a checkpoint holds what was done; without any it is not 5."""
        newest = self._newest_step()
        text = f"stopped {how}".rstrip()
        again = f"seedbed train --resume {self.run.path}"
        if newest < 0:
            return StoppedUnsaved(f"{text}, before anything was saved", f"begin again with: {again}")
        return Preempted(f"{text}; step {newest} is saved", f"go on with: {again}")

    def _last_words(self, rank: int) -> str:
        words = read_json(self.run.heartbeat_path(rank)).get("error", "")
        return f": {words.splitlines()[0]}" if words else ""

    def _spec(self, rank: int, attempt: int, rendezvous: Path) -> WorkerSpec:
        engine = self.config.engine
        environment = {"OMP_NUM_THREADS": str(threads_per_rank(engine)), "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
        if engine.device == "cpu":
            environment["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
            # Batches of many lengths leave a kernel for each, a gigabyte of them within minutes.
            for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
                environment[name] = os.environ.get(name, "128")
        arguments = {
            "--run-dir": self.run.path,
            "--rank": rank,
            "--attempt": attempt,
            "--rendezvous": rendezvous,
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


def _is_kill(code: int | None) -> bool:
    """Whether a worker died by a signal that nobody raises by mistake."""
    return code is not None and code < 0 and code != -signal.SIGABRT


def _cause(code: int, hung: bool) -> str:
    """Whose budget of `[restarts]` an end is taken from."""
    if code == EXIT_PREEMPTED:
        return "preemptions"
    return "infrastructure" if hung or code < 0 or code == EXIT_CORRUPTED else "program"


def _death(worker: Worker, code: int) -> str:
    name = f"{worker.name} on {worker.place}" if worker.place else worker.name
    if code < 0:
        known = {number.value: number.name for number in signal.Signals}
        return f"{name} was killed by {known.get(-code, f'signal {-code}')}"
    if code == EXIT_PREEMPTED:
        return f"{name} was asked to stop by somebody else, and saved"
    return f"{name} ended with exit code {code}"
