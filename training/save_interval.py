"""How often to save: every so many steps, or as failures and the cost of a save have it.

A save every T seconds costs C / T of the time, and a failure T / 2 of it on average: least in all at
T = sqrt(2 C M), for a mean time to failure M (Young 1974; Daly 2006 for the terms that are left out, which
are small while C is small beside M).
"""

import math
from collections import deque
from statistics import median

from training.sections import CheckpointConfig

LEAST_COST_S = 0.01
"""Of a save: what is measured of shorter ones is noise."""
NUM_STEPS = 20
"""The last steps, of which the median is taken."""


def young_daly_s(cost_s: float, mttf_s: float) -> float:
    """The best interval between saves that cost `cost_s` each, with a mean time to failure of `mttf_s`."""
    return math.sqrt(2 * max(cost_s, LEAST_COST_S) * mttf_s)


def effective_share(interval_s: float, cost_s: float, restart_s: float, mttf_s: float) -> float:
    """Share of the wall time that is spent on work which counts, with saves of `cost_s` every `interval_s`.

    Failures come at random with a mean time of `mttf_s`; each loses what was not saved, and `restart_s`
    (Daly 2006, "A higher order estimate of the optimum checkpoint interval for restart dumps": the wall time
    of a segment is M e^(R/M) (e^((T+C)/M) - 1)).
    """
    attempts = math.expm1(min(700.0, (interval_s + cost_s) / mttf_s))
    return min(1.0, interval_s / (mttf_s * math.exp(min(700.0, restart_s / mttf_s)) * attempts))


class SaveInterval:
    """When the next save is due. All ranks have to give it the same numbers."""

    def __init__(self, settings: CheckpointConfig) -> None:
        self._mttf_s = settings.mttf_h * 3600
        self.steps = settings.every_steps
        self._last = 0
        self._step_s: deque[float] = deque(maxlen=NUM_STEPS)

    def resumed(self, step: int) -> None:
        """The run goes on from `step`, which is saved."""
        self._last = step

    def stepped(self, step_s: float) -> None:
        """Note how long a step took here."""
        self._step_s.append(step_s)

    @property
    def step_s(self) -> float:
        """What steps take here, of late."""
        return median(self._step_s) if self._step_s else 0.0

    def is_due(self, step: int) -> bool:
        """Whether to save after `step`."""
        if not self._mttf_s:
            return step % self.steps == 0
        return step - self._last >= self.steps

    def saved(self, step: int, cost_s: float, step_s: float) -> bool:
        """After a save that took `cost_s` of training, with steps of `step_s`; whether the interval is new.

        Small changes are let be.
        """
        self._last = step
        if not (self._mttf_s and step_s):
            return False
        best = max(1, round(young_daly_s(cost_s, self._mttf_s) / step_s))
        if 0.8 <= best / self.steps <= 1.25:
            return False
        self.steps = best
        return True
