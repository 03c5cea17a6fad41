"""What a worker tells the world: metrics and samples (rank 0), a heartbeat (every rank)."""

import contextlib
import json
import os
import time
from typing import Any

from seedbed.files import write_json
from training.checkpoint.layout import list_steps, retain
from training.checkpoint.writer import SaveResult
from training.config import Config
from training.fence import refuse_superseded
from training.metrics import productive_seconds, surviving_rows, working_seconds
from training.run_directory import RunDirectory
from training.system_metrics import EVERY_S, SystemMetrics

HEARTBEAT_EVERY_S = 1.0


class Recorder:
    """Appends rows to the run's records. Only rank 0 writes anything but heartbeats."""

    def __init__(self, run: RunDirectory, config: Config, rank: int, attempt: int) -> None:
        self.run, self.config, self.rank, self.attempt = run, config, rank, attempt
        self.best: tuple[float, int] | None = None
        """Validation loss and step of the best checkpoint that is on disk."""
        self.needed: set[int] = set()
        """Steps that are kept for another reason."""
        self._productive_s = 0.0
        self._worked_s = 0.0
        self._started = time.time()
        self._last_beat = 0.0
        self._last: tuple[int, str] = (0, "")
        self._step_s: float | None = None
        self._system, self._last_read = SystemMetrics(run.path), time.monotonic()

    def begin(self, from_step: int, message: str, **details: Any) -> None:
        """Open this attempt: what earlier attempts did up to `from_step` counts, the rest does not."""
        if self.rank == 0:
            self.event("attempt_started", message, attempt=self.attempt, from_step=from_step, **details)
            self.run.write_status("running", from_step)
            self._started = time.time()
            self._productive_s = productive_seconds(surviving_rows(self.run.path))
            self._worked_s = working_seconds(self.run.path, self._started)

    def goodput(self, step_s: float) -> float:
        """Productive step time, this step included, over wall time since submission."""
        self._productive_s += step_s
        return min(1.0, self._productive_s / max(1e-9, self._worked_s + time.time() - self._started))

    def row(self, kind: str, step: int, **values: Any) -> None:
        """Append one row of metrics; beside training now and then one of how busy the host is."""
        if self.rank == 0:
            self.run.metrics.append(
                {"kind": kind, "attempt": self.attempt, "step": step, "time": time.time(), **values}
            )
            if kind == "train" and time.monotonic() - self._last_read > EVERY_S:
                self._last_read = time.monotonic()
                self.row("system", step, **self._system.read())

    def sample(self, step: int, prompt: str, text: str) -> None:
        """Append one continuation."""
        if self.rank == 0:
            self.run.samples.append({"attempt": self.attempt, "step": step, "prompt": prompt, "text": text})

    def event(self, kind: str, message: str, **details: Any) -> None:
        """Append one event."""
        if self.rank == 0:
            self.run.event(kind, message, **details)

    def saved(self, result: SaveResult) -> None:
        """Called from the writing thread when a save has ended."""
        if result.error:
            self.event(
                "checkpoint_failed", f"step {result.step} was not saved: {result.error}", step=result.step
            )
            return
        self.row(
            "checkpoint",
            result.step,
            blocked_s=result.blocked_s,
            written_s=result.written_s,
            bytes=result.num_bytes,
            state=result.state,
        )
        settings = self.config.checkpoint
        self.best = result.best
        try:
            best_step = self.best[1] if self.best and settings.keep_best else None
            before = [step for step in list_steps(self.run.path) if step < (result.trouble or 0)]
            kept = {best_step, max(before, default=None), *self.needed}
            retain(self.run.path, settings.keep, settings.keep_every, kept)
        except OSError as error:
            self.event("retention_failed", f"old checkpoints could not be deleted: {error}")

    def beat(self, step: int, phase: str, step_s: float | None = None) -> None:
        """Tell the supervisor what this rank is doing; at most once a second within one phase.

        Every beat says how long the last step took: who looks once a second must not miss it.
        """
        now = time.monotonic()
        self._step_s = step_s if step_s is not None else self._step_s
        if phase == self._last[1] and now - self._last_beat < HEARTBEAT_EVERY_S:
            return
        self._last_beat, self._last = now, (step, phase)
        refuse_superseded(self.run.path, self.attempt)
        details = {} if self._step_s is None else {"step_s": self._step_s}
        beat(self.run, self.rank, step, phase, **details)
        if self.rank == 0 and phase == "training":
            self.run.write_status("running", step)

    def still(self) -> None:
        """Beat again: what this rank does takes long."""
        self.beat(*self._last)


def beat(run: RunDirectory, rank: int, step: int, phase: str, **details: Any) -> None:
    """Replace the heartbeat of `rank`. A full disk must not stop training: the next beat tries again."""
    value = {"rank": rank, "pid": os.getpid(), "step": step, "phase": phase, "time": time.time(), **details}
    path = run.heartbeat_path(rank)
    try:
        write_json(path, value, durable=False)
    except OSError:
        # Last words must be heard on a full disk too: over the blocks that the file already has.
        with contextlib.suppress(OSError), open(path, "r+b") as file:
            file.write(json.dumps(value).encode())
            file.truncate()
