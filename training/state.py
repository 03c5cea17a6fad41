"""What a resume needs beside tensors."""

from dataclasses import dataclass


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
