"""What is told of each iteration: a row of the record, and whether its reward can still be believed.

What follows from that is `rl.over_optimised`: nothing; the run ends; or it ends and goes back to where gold
was best, for which each step with a new best is saved.
"""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from training.recorder import Recorder
from training.rl.judging import Judge
from training.rl.over_optimisation import Iteration, Watch, clustered_error
from training.rl.rollouts import Rollout
from training.rl.scores import summary
from training.rl.settings import RlConfig
from training.rl.sources import Judged
from training.rl.weights import Clock


class IterationRecord:
    """Over one run; all ranks see the same."""

    def __init__(self, settings: RlConfig, recorder: Recorder, gold: Judge | None) -> None:
        self.settings, self.recorder, self.gold = settings, recorder, gold
        self.watch = Watch()

    def add(
        self,
        step: int,
        kept: Sequence[Rollout],
        left_out: Sequence[Rollout],
        examples: Callable[[list[Rollout]], list[Judged]],
        clock: Clock,
        *,
        kl: float,
        **measured: Any,
    ) -> None:
        """The iteration that steps from `step` on learn from; `kl` in nats of an answer."""
        gold, gold_error = self._gold(examples(list(kept)) if self.gold else [])
        told = summary(kept, left_out)
        seconds = {f"{name}_s": value for name, value in clock.seconds.items()}
        self.recorder.row(
            "rollouts", step, **told, gold=gold, gold_error=gold_error, kl=kl, **seconds, **measured
        )
        seen = Iteration(
            step, told["reward"], gold, gold_error, kl, told["disagreement"], told["answer_tokens"]
        )
        for one in self.watch.note(seen):
            self.recorder.event(one.kind, one.message, step=step, **one.numbers)
        self._need()

    def _gold(self, judged: list[Judged]) -> tuple[float | None, float | None]:
        """Mean of the rewards that are only measured, and its standard error; None without any."""
        found = self.gold.rewards(judged) if self.gold else []
        pairs = [
            (reward.total, one.rollout.number)
            for reward, one in zip(found, judged, strict=True)
            if not reward.failure
        ]
        if not pairs:
            return None, None
        totals, prompts = zip(*pairs, strict=True)
        return fmean(totals), clustered_error(totals, prompts)

    def _need(self) -> None:
        """The newest best step is saved once it is over; until then the one before must not go."""
        if self.settings.over_optimised == "best":
            self.recorder.needed = set(self.watch.best_steps)

    @property
    def ends(self) -> bool:
        """Whether the run does."""
        return self.settings.over_optimised != "tell" and self.watch.is_over_optimised

    def keeps(self, step: int) -> bool:
        """Whether a step is to be saved, for the run to go back to."""
        return self.settings.over_optimised == "best" and self.watch.best_steps[-1:] == [step]

    def load_state(self, state: Any) -> None:
        """What `watch.state()` gave; None of a checkpoint that was made without."""
        self.watch = Watch()
        if state is not None:
            self.watch.load_state(state)
        self._need()
