"""A pipeline from its first stage to its last: what is done is skipped, what is missing made, in order."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.output import note
from cluster.pipelines.commands import check_command
from cluster.pipelines.costs import History, check_room
from cluster.pipelines.graph import Pipeline
from cluster.pipelines.making import Making, Outcome, Start, local_start
from cluster.pipelines.store import check_inputs
from cluster.pipelines.work import Input, Work, config_of, work_of
from seedbed.errors import (
    EXIT_TRAINING,
    ConfigError,
    Preempted,
    SeedbedError,
    StoppedUnsaved,
    UsageError,
    did_you_mean,
)
from seedbed.files import write_json
from training.checkpoint.layout import list_steps
from training.config import Config

RECORD = "pipeline.json"
"""In a pipeline's folder: its stages and what became of them. A sweep has a record of its own."""
POLL_S = 0.1


@dataclass
class Progress:
    """One stage as a pipeline's record has it."""

    state: str = "waiting"
    """waiting, running, done, failed, stopped, or paused where a rung of a sweep ends."""
    was_made: bool = False
    """By this call; else it was there."""
    work: Work | None = None
    record: dict[str, Any] = field(default_factory=dict)
    message: str = ""
    estimate: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        value: dict[str, Any] = {"state": self.state, "made": self.was_made, "message": self.message}
        if self.work:
            value |= {
                "key": self.work.key,
                "place": str(self.work.place.path),
                "out": str(self.work.place.out),
            }
            value["inputs"] = {name: item.digest for name, item in self.work.inputs.items()}
        for name in ("kind", "digest", "bytes", "seconds", "devices", "device_hours", "result"):
            if name in self.record:
                value[name] = self.record[name]
        return {**value, "estimate": self.estimate or None}


class Driver:
    """Makes the stages of one pipeline, `at_once` of them at a time."""

    def __init__(
        self,
        pipeline: Pipeline,
        folder: Path,
        store: Path,
        *,
        at_once: int = 1,
        redo: tuple[str, ...] = (),
        start: Start = local_start,
        is_local: bool = True,
        keeps_going: bool = False,
        price: float | None = None,
        pause_at: int = 0,
        record: str = RECORD,
    ) -> None:
        self._record_name = record
        self.pipeline, self.folder, self.store = pipeline, folder.absolute(), store
        self.at_once, self.start, self.is_local, self.keeps_going = at_once, start, is_local, keeps_going
        self.price, self.pause_at = price, pause_at
        self.history = History()
        self.stages = {name: Progress() for name in pipeline.stages}
        for name in redo:
            if name not in self.stages:
                raise UsageError(
                    f"--redo {name}: there is no such stage",
                    did_you_mean(name, self.stages, f"they are: {', '.join(self.stages)}", "'{}'"),
                )
        self._redo = set(redo)
        self._stop_requests = 0
        self._inputs: dict[str, Input] = {}
        self.on_change: Callable[[], None] = lambda: None

    def look(self) -> None:
        """Find what is done, and refuse what cannot be, before anything is started."""
        given = check_inputs(self.pipeline.inputs, self.store)
        paths = {name: path.absolute() for name, path in self.pipeline.inputs.items()}
        self._inputs = {name: Input(paths[name], found.digest) for name, found in given.items()}
        for name, stage in self.pipeline.stages.items():
            try:
                check_command(stage)
                # A recipe that is none is refused now, though its turn may come in days.
                self._expected(name)
            except ConfigError as error:
                if not self.keeps_going:
                    raise
                self.stages[name].state, self.stages[name].message = "failed", error.message
        for name in self.pipeline.stages:
            self._resolve(name)
        for name, progress in self.stages.items():
            self._check_sound(name, progress)
        self._same_work()

    def _resolve(self, name: str) -> None:
        """Have a stage's work in hand, and whether it is done, once its inputs are."""
        stage, progress = self.pipeline.stages[name], self.stages[name]
        is_early = any(self.is_open(needed) for needed in stage.inputs)
        if progress.work is not None or progress.state == "failed" or is_early:
            return
        progress.work = work_of(stage, self._inputs, self.store)
        record = None if name in self._redo else progress.work.place.done()
        if record is not None:
            self._done(name, record, was_made=False)
        elif self.keeps_going and (verdict := progress.work.place.verdict()):
            progress.state, progress.message, progress.record = "failed", verdict["message"], verdict
        elif self.pause_at and max(list_steps(progress.work.place.out), default=0) >= self.pause_at:
            progress.state = "paused"

    def is_open(self, name: str) -> bool:
        """Whether an artefact is yet to be made."""
        return name not in self._inputs

    def _done(self, name: str, record: dict[str, Any], *, was_made: bool) -> None:
        progress = self.stages[name]
        assert progress.work is not None
        progress.state, progress.record, progress.was_made = "done", record, was_made
        self._inputs[name] = Input(progress.work.place.out, record["digest"], progress.work.key)

    def _check_sound(self, name: str, progress: Progress) -> None:
        """Raises UsageError for an artefact that is needed, and is not what its stage made."""
        if progress.state != "done" or progress.work is None:
            return
        why = progress.work.place.unsound()
        users = self.pipeline.dependents(name)
        if not why or (why == "is gone" and users and all(self.stages[u].state == "done" for u in users)):
            return
        raise UsageError(
            f"the artefact of stage '{name}' {why}: {progress.work.place.out}",
            f"put it back as it was, or have it made again: --redo {name}",
        )

    def _same_work(self) -> None:
        places: dict[str, str] = {}
        for name, progress in self.stages.items():
            if progress.work is None:
                continue
            if progress.work.key in places:
                raise UsageError(
                    f"the stages '{places[progress.work.key]}' and '{name}' do the same, and would write one "
                    f"place: {progress.work.place.path}",
                    f"leave one of them out, and say {{{places[progress.work.key]}}} for both",
                )
            places[progress.work.key] = name

    def estimate(self) -> None:
        """What each stage that is not done will take."""
        for name, progress in self.stages.items():
            if progress.state in ("done", "failed"):
                continue
            config = progress.work.config if progress.work else self._expected(name)
            found = self.history.estimate(self.pipeline.stages[name], config, self._from_step(name))
            progress.estimate = found.as_dict(self.price)

    def _expected(self, name: str) -> Config | None:
        """The configuration of a stage whose inputs are yet to be made."""
        stage = self.pipeline.stages[name]
        return config_of(stage, dict.fromkeys([*stage.inputs, "out"], "0"))

    def _from_step(self, name: str) -> int:
        """At which a stage that branches off from a training of this pipeline begins; 0 for any other."""
        trunk = self.pipeline.stages[name].branches_from
        config = self._expected(trunk) if trunk in self.stages else None
        return config.run.steps if config else 0

    def run(self) -> None:
        """Make what is not done. Raises the first stage's error, Preempted or StoppedUnsaved."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.estimate()
        for name, progress in self.stages.items():
            if progress.state == "done":
                self._link(name)
        self._write("running")
        running: dict[str, Making] = {}
        failure: SeedbedError | None = None
        state = "failed"
        try:
            with self._stoppable():
                while True:
                    if not self._stop_requests and (failure is None or self.keeps_going):
                        failure = self._start_ready(running) or failure
                    if not running:
                        break
                    failure = self._look_at(running) or failure
                    time.sleep(POLL_S)
            state = "stopped" if self._stop_requests else "failed" if failure else "done"
        finally:
            for making in running.values():
                making.kill()
                making.close()
            self._write(state)
        if self._stop_requests:
            raise self._stopped()
        if failure is not None and not self.keeps_going:
            raise failure

    def _start_ready(self, running: dict[str, Making]) -> SeedbedError | None:
        """Start what has its inputs, as far as there is room; the error of one that cannot start."""
        for name, progress in self.stages.items():
            if len(running) >= self.at_once:
                return None
            if progress.state != "waiting":
                continue
            try:
                self._resolve(name)
                if progress.state == "done":
                    self._tell(name, f"is done: {progress.record['kind']} {progress.record['digest'][:12]}")
                    self._link(name)
                    self._write("running")
                    continue
                if progress.work is None:
                    continue
                self._same_work()
                self._prepare(name, progress.work)
            except SeedbedError as error:
                progress.state, progress.message = "failed", error.message
                self._write("running")
                if not self.keeps_going:
                    return error
                continue
            progress.state = "running"
            running[name] = Making(
                progress.work,
                lambda text, name=name: self._tell(name, text),  # type: ignore[misc]
                start=self.start,
                pause_at=self.pause_at,
                pipeline=self.pipeline.name,
                is_local=self.is_local,
                redo=name in self._redo,
            )
            self._redo.discard(name)
            self._write("running")
        return None

    def _prepare(self, name: str, work: Work) -> None:
        needed = self.history.estimate(work.stage, work.config).num_bytes
        check_room(name, needed, self.store)

    def _look_at(self, running: dict[str, Making]) -> SeedbedError | None:
        failure = None
        for name, making in list(running.items()):
            if self._stop_requests:
                making.stop(self._stop_requests)
            outcome = making.poll()
            if outcome is None:
                continue
            del running[name]
            failure = self._ended(name, outcome) or failure
            self._write("running")
        return failure

    def _ended(self, name: str, outcome: Outcome) -> SeedbedError | None:
        progress = self.stages[name]
        assert progress.work is not None
        if outcome.state == "done":
            self._done(name, outcome.record, was_made=outcome.was_made)
            if outcome.was_made and self.is_local:
                self.history.add(progress.work, outcome.record, self._from_step(name))
            self._link(name)
            self._tell(name, f"{outcome.record['kind']} {outcome.record['digest'][:12]}")
            return None
        progress.state = outcome.state
        if outcome.error is None:
            return None
        progress.message, progress.record = outcome.error.message, {"code": outcome.code}
        if outcome.code == EXIT_TRAINING:
            progress.work.place.judge(outcome.code, outcome.error.message)
        self._tell(name, f"! {outcome.error.message}")
        return outcome.error

    def _link(self, name: str) -> None:
        """The artefact under its stage's name, in the pipeline's folder."""
        work, link = self.stages[name].work, self.folder / name
        assert work is not None
        if link.is_symlink():
            if link.resolve() == work.place.out.resolve():
                return
            link.unlink()
        if not link.exists():
            link.symlink_to(work.place.out)

    def _tell(self, name: str, text: str) -> None:
        note(f"{name}: {text}")

    def _write(self, state: str) -> None:
        self.record = {
            "pipeline": self.pipeline.name,
            "description": self.pipeline.description,
            "state": state,
            "time": time.time(),
            "folder": str(self.folder),
            "store": str(self.store),
            "inputs": {
                name: {"path": str(item.path), "digest": item.digest}
                for name, item in self._inputs.items()
                if name not in self.stages
            },
            "stages": {name: progress.as_dict() for name, progress in self.stages.items()},
            "needs": {stage.name: stage.inputs for stage in self.pipeline.stages.values()},
        }
        if self._record_name:
            write_json(self.folder / self._record_name, self.record)
        self.on_change()

    @contextmanager
    def _stoppable(self) -> Iterator[None]:
        def request(*_: Any) -> None:
            self._stop_requests += 1
            note("stopping: what runs saves first")

        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        previous = {number: signal.signal(number, request) for number in numbers}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _stopped(self) -> SeedbedError:
        saved = [name for name, progress in self.stages.items() if progress.state == "stopped"]
        kind = Preempted if saved or any(p.state == "done" for p in self.stages.values()) else StoppedUnsaved
        return kind(f"stopped{' in ' + ', '.join(saved) if saved else ''}", "the same command goes on")


def total(stages: dict[str, Progress], name: str) -> float | None:
    """The sum of a figure over what is not done; None when it is not known of all of them."""
    values = [progress.estimate.get(name) for progress in stages.values() if progress.estimate]
    return None if any(value is None for value in values) else float(sum(v for v in values if v is not None))
