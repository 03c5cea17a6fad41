"""Guards: a step that would do harm is skipped, and when that is not enough, the run slows down or goes back.

A loss or gradient norm that is not a number, and one far above those of the steps before (mean plus sigma
deviations over a window: OLMo-core's rule), is not learnt from. When there are many within a window, the
rate is lowered for as many steps; if they go on, the run goes back to a checkpoint before the first of them
and passes over the data since (as PaLM did by hand: Chowdhery et al. 2022, section 5.1).

Everything here is a function of numbers that are sums over all ranks, so all ranks decide alike; and what is
remembered is saved with every checkpoint, so a run that was resumed decides as it would have. No torch.
"""

import math
import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

from seedbed.errors import TrainingError
from training.resilience import GuardsConfig

LEAST_DEVIATION = 0.01
"""Of the mean: steps that hardly differ must not make a small change a spike."""


@dataclass
class GuardState:
    """What is remembered of the steps before."""

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    """Of the last steps that were learnt from."""
    nonfinite: list[int] = field(default_factory=list)
    """Steps that were skipped for it, within the window."""
    spikes: list[tuple[int, int]] = field(default_factory=list)
    """Step and data position of those within the window, since the rate was last lowered."""
    began: tuple[int, int] | None = None
    """Step and data position of the first spike of the trouble for which the rate was lowered."""
    slowed_until: int = 0
    """The last step with a lowered rate."""

    @classmethod
    def load(cls, saved: dict[str, Any]) -> "GuardState":
        """From what `save` gave."""
        state = cls(**saved)
        state.spikes = [(step, position) for step, position in state.spikes]
        state.began = None if state.began is None else (state.began[0], state.began[1])
        return state

    def save(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Verdict:
    """What becomes of a step."""

    problem: str = ""
    """Why it was not learnt from, or would not have been."""
    slowed: bool = False
    """The rate is lowered from the next step on."""
    back_before: int | None = None
    """The run has to go back to a checkpoint before this step,"""
    passed_over: tuple[int, int] | None = None
    """and pass over the data from the one position up to the other."""


class Guards:
    """Watches over the steps of one run."""

    def __init__(self, settings: GuardsConfig, state: GuardState | None = None) -> None:
        self.settings, self.state = settings, state or GuardState()

    def limit(self, values: list[float]) -> float:
        """Above which the next value is a spike; infinite while too few are known."""
        if self.settings.spikes == "off" or len(values) < self.settings.window:
            return math.inf
        mean = statistics.fmean(values)
        variance = math.fsum((value - mean) ** 2 for value in values) / len(values)
        deviation = max(math.sqrt(variance), LEAST_DEVIATION * abs(mean))
        return mean + self.settings.sigma * deviation

    @property
    def max_norm(self) -> float:
        """The gradient norm above which the engine is not to update anything."""
        return self.limit(self.state.norms) if self.settings.spikes == "act" else math.inf

    def lr_factor(self, step: int) -> float:
        """What the scheduled rate is multiplied by."""
        return self.settings.lr_factor if step <= self.state.slowed_until else 1.0

    def refuses(self, loss: float) -> bool:
        """Whether a step with this loss is not to be learnt from."""
        is_spike = self.settings.spikes == "act" and loss > self.limit(self.state.losses)
        return is_spike or not math.isfinite(loss) or self._is_too_high(loss)

    def _is_too_high(self, loss: float) -> bool:
        return 0 < self.settings.max_loss < loss

    def note(self, step: int, position: int, following: int, loss: float, norm: float | None) -> Verdict:
        """Remember a step that began at data position `position`, the next at `following`.

        `norm` is None when the loss alone was reason enough. Raises TrainingError when too many steps were
        not finite.
        """
        state, settings = self.state, self.settings
        known = {"loss": (loss, state.losses)} | (
            {} if norm is None else {"gradient norm": (norm, state.norms)}
        )
        for name, (value, _) in known.items():
            if not math.isfinite(value):
                return self._not_learnt(step, position, following, f"the {name} is {value}")
        if self._is_too_high(loss):
            above = f"the loss is {loss:.4g}, above guards.max_loss = {settings.max_loss:g}"
            return self._not_learnt(step, position, following, above)
        problem = next(filter(None, (self._above(name, *values) for name, values in known.items())), "")
        if problem and settings.spikes == "act":
            return self._climb(step, position, following, problem)
        state.losses = [*state.losses, loss][-settings.window :]
        state.norms = [*state.norms, *([] if norm is None else [norm])][-settings.window :]
        return Verdict(problem)

    def _not_learnt(self, step: int, position: int, following: int, problem: str) -> Verdict:
        state, settings = self.state, self.settings
        state.nonfinite = [s for s in state.nonfinite if s > step - settings.window] + [step]
        if len(state.nonfinite) <= settings.max_nonfinite:
            return Verdict(problem)
        raise TrainingError(
            f"step {step}: {problem}; so in {len(state.nonfinite)} of the last {settings.window} steps, "
            "and nothing was updated by them",
            "lower optimizer.lr, raise schedule.warmup_share, or look at the samples from position "
            f"{position} to {following - 1}",
        )

    def _above(self, name: str, value: float, before: list[float]) -> str:
        if value <= (limit := self.limit(before)):
            return ""
        return (
            f"the {name} is {value:.4g}, above {limit:.4g}: the mean of {len(before)} steps plus "
            f"{self.settings.sigma:g} deviations"
        )

    def _climb(self, step: int, position: int, following: int, problem: str) -> Verdict:
        state, window = self.state, self.settings.window
        if step > state.slowed_until + window:
            # What the rate was lowered for is over.
            state.began = None
        state.spikes = [spike for spike in state.spikes if spike[0] > step - window] + [(step, position)]
        if len(state.spikes) <= self.settings.max_skips:
            return Verdict(problem)
        if state.began is None:
            state.began, state.slowed_until, state.spikes = state.spikes[0], step + window, []
            return Verdict(problem, slowed=True)
        first, start = state.began
        return Verdict(problem, back_before=first, passed_over=(start, following))


def describe(verdict: Verdict, step: int, skipped: bool, losses: list[float], samples: list[str]) -> str:
    """An event's text; `losses` and `samples` are those of the step's micro-batches."""
    worst = max(
        range(len(losses)), key=lambda index: math.inf if losses[index] != losses[index] else losses[index]
    )
    text = f"step {step} {'was skipped' if skipped else 'is a spike'}: {verdict.problem}"
    text += f"; the largest loss, {losses[worst]:.4g}, is that of samples {samples[worst]}"
    if verdict.slowed:
        text += "; the learning rate is lowered for a while (guards.lr_factor)"
    return text
