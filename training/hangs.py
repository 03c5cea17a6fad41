"""Ranks that have gone silent: found by their heartbeats, named with what they were doing.

A rank beats from its own loop, so one that waits for another is as silent as the one it waits for. Which of
them it is, the operating system tells of one that was stopped; else it is the one that came least far.
"""

import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from seedbed.files import write_json
from training.launch import Worker
from training.resilience import TimeoutsConfig
from training.run_directory import RunDirectory, read_json

LOOK_EVERY_S = 1.0
NUM_STEPS = 500
"""Of the last steps that beats told of, of which the 99th percentile is taken."""
PATIENCE = 5.0


@dataclass
class Pulse:
    """What was last heard of a rank, by this process's own clock."""

    beat: dict[str, Any]
    heard: float


@dataclass(frozen=True)
class Hang:
    """A rank that is silent, and the stacks of all that are."""

    rank: int
    message: str
    silent_s: float
    stacks: dict[int, str]


class HangWatch:
    """Looks at the heartbeats of one attempt."""

    def __init__(self, run: RunDirectory, timeouts: TimeoutsConfig, num_ranks: int) -> None:
        self.run, self.timeouts = run, timeouts
        now = time.monotonic()
        self._pulses = [Pulse({}, now) for _ in range(num_ranks)]
        self._steps_s: deque[float] = deque(maxlen=NUM_STEPS)
        self._looked = now

    def look(self, workers: Sequence[Worker]) -> Hang | None:
        """The rank that hangs, if one does; looks at most once a second. Stacks take up to a few seconds."""
        now = time.monotonic()
        if not self.timeouts.heartbeat_s or now - self._looked < LOOK_EVERY_S:
            return None
        paused, self._looked = now - self._looked > 10 * LOOK_EVERY_S, now
        for rank, pulse in enumerate(self._pulses):
            beat = read_json(self.run.heartbeat_path(rank))
            # Who was stopped itself has not heard what was said meanwhile.
            if beat == pulse.beat and not paused:
                continue
            if "step_s" in beat:
                self._steps_s.append(float(beat["step_s"]))
            self._pulses[rank] = Pulse(beat, now)
        silent = [
            rank
            for rank, pulse in enumerate(self._pulses)
            if workers[rank].poll() is None and self._is_silent(pulse, workers[rank], now)
        ]
        if silent and self._is_mute():
            # Whether they are well cannot be known: the time counts anew.
            for rank in silent:
                self._pulses[rank].heard = now
            return None
        return self._named(silent, workers, now) if silent else None

    def _is_silent(self, pulse: Pulse, worker: Worker, now: float) -> bool:
        """Longer than its phase explains; what was stopped by a signal is in no phase."""
        silent_s = now - pulse.heard
        return silent_s > self.limit_s(pulse) or (
            silent_s > self.timeouts.heartbeat_s and worker.is_stopped()
        )

    def _is_mute(self) -> bool:
        """Whether no rank could be heard, since nothing can be written."""
        try:
            write_json(self.run.heartbeat_path(0).with_name("probe.tmp"), {}, durable=False)
        except OSError:
            return True
        return False

    def limit_s(self, pulse: Pulse) -> float:
        """How long the rank may be silent in the phase that it is in."""
        if pulse.beat.get("phase") != "training":
            return self.timeouts.collective_s
        return max(self.timeouts.heartbeat_s, PATIENCE * _percentile(self._steps_s, 0.99))

    def _named(self, silent: list[int], workers: Sequence[Worker], now: float) -> Hang:
        stopped = [rank for rank in silent if workers[rank].is_stopped()]
        steps = {r: int(self._pulses[r].beat.get("step", 0)) for r in silent}
        rank = min(stopped or silent, key=lambda r: (steps[r], self._pulses[r].heard))
        pulse = self._pulses[rank]
        phase = pulse.beat.get("phase", "starting")
        silent_s = now - pulse.heard
        if stopped:
            # Who waits for it may have beaten once more.
            silent = [
                r
                for r, worker in enumerate(workers)
                if worker.poll() is None and now - self._pulses[r].heard > silent_s / 2
            ]
        stacks = {r: workers[r].stack() for r in silent}
        message = f"rank {rank} has been silent for {silent_s:.0f} s, since {phase} after step {steps[rank]}"
        if rank in stopped:
            message += "; its process was stopped by a signal"
        if innermost := _innermost(stacks[rank]):
            message += f"; it was in {innermost}"
        if others := ", ".join(str(r) for r in silent if r != rank):
            message += f"; rank(s) {others} wait for it" if stopped else f"; so have been {others}"
        return Hang(rank, message, silent_s, stacks)


def _percentile(values: Sequence[float], share: float) -> float:
    """The nearest rank of it; 0 of nothing."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else 0.0


def _innermost(stack: str) -> str:
    """The innermost frame of the main thread, which faulthandler writes last and most recent first."""
    lines = [line.strip() for line in stack.splitlines()]
    starts = [number for number, line in enumerate(lines) if line.startswith(("Thread", "Current thread"))]
    following = starts[-1] + 1 if starts else 0
    return lines[following] if following < len(lines) else ""
