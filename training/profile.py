"""Where a step's time goes: torch's profiler over a few steps of rank 0 (`seedbed train --profile 10:13`).

A trace for chrome://tracing or Perfetto, and a table: the phases of a step, the share of it in which ranks
communicated, then its operations.
"""

from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from seedbed.errors import Preempted
from training.recorder import Recorder
from training.sections import profiled_steps

PHASES = ("step", "data", "forward", "backward", "ranks", "optimizer")
"""Names under which a step's phases are recorded; all but `step` are parts of it."""
PREFIX = "seedbed."
ROWS = 40


class Profiler:
    """Records the steps of `tracking.profile`, and writes what it saw after the last of them.

    A run that ends before that leaves what there is; one that fails leaves nothing: its error cannot wait.
    """

    def __init__(self, steps: str, recorder: Recorder, device: torch.device) -> None:
        self.steps = profiled_steps(steps) if steps and recorder.rank == 0 else range(0)
        self._recorder, self._device = recorder, device
        self._profile: Any = None
        self._first = self._last = 0

    def __enter__(self) -> "Profiler":
        return self

    def before(self, step: int) -> None:
        """To be called before a step is trained."""
        if step in self.steps and self._profile is None:
            activities = [ProfilerActivity.CPU]
            if self._device.type == "cuda":
                activities.append(ProfilerActivity.CUDA)
            self._profile, self._first = profile(activities=activities), step
            self._profile.start()

    def after(self, step: int) -> None:
        """To be called after it."""
        self._last = step
        if self._profile is not None and step + 1 not in self.steps:
            self._end()

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if self._profile is None:
            return
        if error is None or isinstance(error, Preempted):
            self._end()
        else:
            self._profile.stop()

    def _end(self) -> None:
        self._profile.stop()
        self._write(self._last)
        self._profile = None

    def _write(self, last: int) -> None:
        folder = self._recorder.run.path / "profile"
        name = f"steps-{self._first}-{last}"
        try:
            folder.mkdir(exist_ok=True)
            self._profile.export_chrome_trace(str(folder / f"{name}.trace.json"))
            path = folder / f"{name}.txt"
            path.write_text(self._table(), encoding="utf-8")
        except OSError as error:
            self._recorder.event("not_profiled", f"the profile could not be written: {error}", step=last)
            return
        message = f"profile of steps {self._first} to {last}: {path}"
        self._recorder.event("profiled", message, step=last, table=str(path))

    def _exchanges(self) -> tuple[int, float]:
        """How many collectives there were, and the milliseconds in which one at least was under way.

        That is communicating, and waiting for other ranks, whether or not something was computed meanwhile.
        """
        spans = sorted(
            (event.time_range.start, event.time_range.end)
            for event in self._profile.events()
            if event.name.startswith(("gloo:", "nccl"))
        )
        busy = end = 0.0
        for first, last in spans:
            busy += max(0.0, last - max(first, end))
            end = max(end, last)
        return len(spans), busy / 1000

    def _table(self) -> str:
        averages = self._profile.key_averages()
        times = {event.key: (event.count, event.cpu_time_total / 1000) for event in averages}
        whole = times[PREFIX + "step"][1]
        lines = [f"{'phase':<12}{'times':>8}{'ms':>12}{'share':>8}"]
        for phase in PHASES:
            count, milliseconds = times.get(PREFIX + phase, (0, 0.0))
            lines.append(f"{phase:<12}{count:>8}{milliseconds:>12.2f}{milliseconds / whole:>8.1%}")
        count, milliseconds = self._exchanges()
        share = milliseconds / whole
        lines.append(f"{'exchanges':<12}{count:>8}{milliseconds:>12.2f}{share:>8.1%}  beside the phases")
        by = "self_cuda_time_total" if self._device.type == "cuda" else "self_cpu_time_total"
        return "\n".join([*lines, "", averages.table(sort_by=by, row_limit=ROWS), ""])
