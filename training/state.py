"""What a resume needs beside tensors."""

from dataclasses import dataclass, field

from training.guards import GuardState


@dataclass
class TrainState:
    """How far a run has come."""

    step: int = 0
    position: int = 0
    """Samples consumed: the data of the next step begins here."""
    validated: float | None = None
    """Validation loss of the current step, if it was measured; it is not carried over a resume."""
    least: float | None = None
    """Least validation loss so far, as `eval.min_delta` counts."""
    num_stale: int = 0
    """Validations since."""
    lowest: float | None = None
    """Least validation loss so far, by however little."""
    guards: GuardState = field(default_factory=GuardState)
    """What guards remember of the steps before."""
    passed_over: list[tuple[int, int]] = field(default_factory=list)
    """Stretches of data positions, from the one up to the other, that the run does not learn from."""
    num_updates: int = 0
    """Steps that were learnt from."""

    @property
    def num_samples(self) -> int:
        """Samples up to the position, less those that were passed over."""
        return self.position - sum(max(0, min(end, self.position) - start) for start, end in self.passed_over)

    def after(self, position: int) -> int:
        """The first data position from `position` on that is not passed over."""
        for start, end in sorted(self.passed_over):
            if start <= position < end:
                position = end
        return position
