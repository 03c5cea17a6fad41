"""One stage being made: its place locked, its command run, again if need be, what came of it written down.

A small machine that is asked again and again, so that many can be made at once by one thread.
"""

import contextlib
import fcntl
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from cluster.pipelines.artefacts import exists
from cluster.pipelines.work import Work, command_of, process_of
from seedbed.errors import (
    EXIT_DATA,
    EXIT_OK,
    EXIT_PREEMPTED,
    EXIT_TRAINING,
    EXIT_USAGE,
    DataError,
    SeedbedError,
)
from seedbed.files import write_atomic, write_json
from training.checkpoint.layout import list_steps
from training.run_directory import read_json

FINAL = (EXIT_USAGE, EXIT_DATA, EXIT_TRAINING, EXIT_PREEMPTED)
"""Exit codes after which the same would happen again."""
KEPT = (
    "state", "step", "tokens", "loss", "val_loss", "val_bits_per_byte", "scores", "restarts", "tokens_per_s",
    "time_by_cause",
)  # fmt: skip
"""Of what a training says of itself."""

Tell = Callable[[str], None]
Start = Callable[[Work, Mapping[str, Any]], tuple[list[str], dict[str, str]]]


@dataclass(frozen=True)
class Outcome:
    """How making a stage ended."""

    state: str
    """done, paused, stopped or failed."""
    record: dict[str, Any] = field(default_factory=dict)
    """What is in done.json."""
    error: SeedbedError | None = None
    code: int = EXIT_OK
    was_made: bool = True
    """False when another had made it meanwhile."""


def local_start(work: Work, more: Mapping[str, Any]) -> tuple[list[str], dict[str, str]]:
    """The stage's command as a process of this machine."""
    return process_of(command_of(work, more))


class Making:
    """Of one stage, from the wait for its place to its outcome. `poll` never blocks for long."""

    def __init__(
        self,
        work: Work,
        tell: Tell,
        *,
        start: Start = local_start,
        pause_at: int = 0,
        pipeline: str = "",
        is_local: bool = True,
        redo: bool = False,
    ) -> None:
        """With `redo` what is there is removed first, once the place is held."""
        self.work, self.tell, self._start, self.pause_at = work, tell, start, pause_at
        self._redo = redo
        self.pipeline, self._is_local = pipeline, is_local
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._attempt = 0
        self._began = 0.0
        self._steps_before = 0
        self._read = 0
        self._told = ""
        self._is_stopping = False
        self._requests = 0

    def poll(self) -> Outcome | None:
        """None while it is being made."""
        try:
            outcome = self._poll()
        except SeedbedError as error:
            outcome = Outcome("failed", error=error, code=error.exit_code)
        if outcome is not None:
            self.close()
        return outcome

    def _poll(self) -> Outcome | None:
        if self._process is None:
            if self._is_stopping:
                return Outcome("stopped", code=EXIT_PREEMPTED)
            if not self._has_lock():
                return None
            if self._redo:
                if not self._is_free():
                    return None
                self.work.place.clear()
                self._redo = False
            if (record := self.work.place.done()) and not self.work.place.unsound():
                return Outcome("done", record, was_made=False)
            if not self._is_free():
                return None
            self._launch()
            return None
        self._echo()
        code = self._process.poll()
        if code is None:
            return None
        self._process = None
        return self._ended(code)

    def stop(self, requests: int = 1) -> None:
        """Have its command save what it can and end; as often as that was asked for, and no oftener."""
        self._is_stopping = True
        if self._process is not None and self._process.poll() is None and requests > self._requests:
            self._process.send_signal(signal.SIGTERM)
            self._requests = requests

    def kill(self) -> None:
        """End its command at once."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Leave its place to others."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _has_lock(self) -> bool:
        if self._lock is None:
            found = self.work.place.try_lock(self.pipeline)
            if isinstance(found, str):
                self._say(f"it is being made by {found}; waiting for it")
                return False
            self._lock = found
        return True

    def _is_free(self) -> bool:
        """Whether the workers of a run that was killed are gone."""
        lock = self.work.place.out / "run.lock"
        if not (self._is_local and lock.is_file()):
            return True
        with open(lock, "a", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._say("what is left of its last process is ending; waiting for that")
                return False
        return True

    def _say(self, text: str) -> None:
        """Once."""
        if text != self._told:
            self._told = text
            self.tell(text)

    def _launch(self) -> None:
        work, place = self.work, self.work.place
        if not work.goes_on:
            _remove(place.out)
        self._steps_before = max(list_steps(place.out), default=0) if work.config else 0
        argv, environment = self._start(work, {"run.pause_at": self.pause_at} if work.config else {})
        write_json(
            place.path / "stage.json",
            {
                "stage": work.stage.name,
                "pipeline": self.pipeline,
                "key": work.key,
                "command": argv[4:],
                "inputs": {name: _input(item) for name, item in work.inputs.items()},
            },
        )
        self._read = place.log.stat().st_size if place.log.exists() else 0
        went_on = f", from step {self._steps_before}" if self._steps_before else ""
        again = f" (attempt {self._attempt + 1})" if self._attempt else ""
        self.tell(f"seedbed {' '.join(work.stage.command)}{again}{went_on}")
        assert self._lock is not None
        with open(place.log, "ab") as log, open(place.answer, "wb") as answer:
            # The command holds the place as well: it may outlive this process.
            self._process = subprocess.Popen(
                argv,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=answer,
                stderr=log,
                start_new_session=True,
                pass_fds=[self._lock.fileno()],
            )
        self._began = time.monotonic()

    def _echo(self) -> None:
        with open(self.work.place.log, "rb") as file:
            file.seek(self._read)
            lines = [line for line in file.readlines() if line.endswith(b"\n")]
        self._read += sum(map(len, lines))
        for line in lines:
            self.tell("| " + line.decode(errors="replace").rstrip())

    def _ended(self, code: int) -> Outcome | None:
        self._echo()
        seconds = time.monotonic() - self._began
        answer = read_json(self.work.place.answer)
        if code == EXIT_OK:
            return Outcome("done", self._finished(answer, seconds))
        if code == EXIT_PREEMPTED and self.pause_at and self._newest() >= self.pause_at:
            return Outcome("paused", {"seconds": seconds}, code=code)
        if self._is_stopping:
            return Outcome("stopped", code=code)
        message, fix = self._why(code, answer)
        if code in FINAL or self._attempt >= self.work.stage.retries:
            error = SeedbedError(f"stage '{self.work.stage.name}' failed: {message}", fix)
            error.exit_code = code if code > 0 else 1
            return Outcome("failed", error=error, code=error.exit_code)
        self._attempt += 1
        self.tell(f"! {message}; trying again ({self._attempt} of {self.work.stage.retries})")
        self._launch()
        return None

    def _newest(self) -> int:
        return max(list_steps(self.work.place.out), default=0)

    def _why(self, code: int, answer: dict[str, Any]) -> tuple[str, str]:
        if "error" in answer:
            return str(answer["error"]), str(answer.get("fix", ""))
        how = f"killed by signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return how, f"read {self.work.place.log}"

    def _finished(self, answer: dict[str, Any], seconds: float) -> dict[str, Any]:
        work, place = self.work, self.work.place
        if not work.stage.writes_out and answer:
            write_atomic(place.out, place.answer.read_bytes())
        if not exists(place.out):
            error = DataError(
                f"stage '{work.stage.name}' ended well and wrote nothing to {place.out}",
                "say {out} where its command takes the place to write to",
            )
            error.exit_code = EXIT_USAGE
            raise error
        whole = work.config is not None
        return place.finish(
            {
                "stage": work.stage.name,
                "key": work.key,
                "command": list(work.stage.command),
                "settings": work.stage.settings,
                "inputs": {name: _input(item) for name, item in work.inputs.items()},
                "seconds": seconds,
                "devices": work.num_devices,
                "device_hours": seconds * work.num_devices / 3600,
                "steps_before": self._steps_before,
                "attempts": self._attempt + 1,
                "result": _kept(answer) if whole else answer,
            }
        )


def _kept(answer: dict[str, Any]) -> dict[str, Any]:
    plan = answer.get("plan", {})
    kept = {name: answer[name] for name in KEPT if name in answer}
    if plan:
        kept |= {"parameters": plan["parameters"], "total_flops": plan["total_flops"]}
    return kept


def _input(item: Any) -> dict[str, str]:
    return {"path": str(item.path), "digest": item.digest, "key": item.key}


def _remove(path: Path) -> None:
    """What a command left half-written that does not go on from it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
