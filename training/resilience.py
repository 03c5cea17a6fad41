"""The tables of a configuration that say what a run survives by itself: guards, restarts, timeouts."""

import itertools
from typing import Literal

from pydantic import Field, model_validator

from training.sections import PLACEMENT, SCHEDULE, Section


class GuardsConfig(Section):
    """Steps that would do harm, and what is done about them; see `training.guards`."""

    max_nonfinite: int = Field(3, ge=0, json_schema_extra=SCHEDULE)
    """Steps whose loss or gradient is not a number that are skipped within `window` steps; one more ends the
    run, as does the first when this is 0."""
    spikes: Literal["off", "warn", "act"] = Field("warn", json_schema_extra=SCHEDULE)
    """What is done about a loss or a gradient norm far above those before: nothing; an event; or the step is
    skipped, after max_skips of them the rate is lowered for a window, and if they go on, the run goes back
    before the first of them and passes over their data."""
    max_loss: float = Field(0.0, ge=0, json_schema_extra=SCHEDULE)
    """A loss above this is taken as one that is no number: what has diverged ends soon, with exit code 4.
    Untrained models are at ln(vocabulary); 0 sets no limit."""
    window: int = Field(128, ge=8, le=2048, json_schema_extra=SCHEDULE)
    """Steps of which mean and deviation are taken; nothing is a spike before there are as many."""
    sigma: float = Field(6.0, gt=0, json_schema_extra=SCHEDULE)
    """Deviations above the mean from which on a value is a spike; OLMo's rule has 6 over 128 steps."""
    max_skips: int = Field(3, ge=0, json_schema_extra=SCHEDULE)
    """Spikes within a window that are only skipped."""
    lr_factor: float = Field(0.5, gt=0, le=1, json_schema_extra=SCHEDULE)
    """What the rate is multiplied by for a window of steps, when there were more."""
    max_rollbacks: int = Field(3, ge=0, json_schema_extra=SCHEDULE)
    """How often a run goes back; when it would once more, it ends."""
    recompute_every: int = Field(0, ge=0, json_schema_extra=PLACEMENT)
    """Steps between checks for silent corruption: each rank computes the loss of a micro-batch twice, and
    other bits end the attempt with the rank's name. For ddp and fsdp; 0 checks nothing."""
    pace_every: int = Field(50, ge=0, json_schema_extra=PLACEMENT)
    """Steps after which the ranks' own times are compared; one that was slow three times in a row is named.
    0 compares nothing."""


class RestartsConfig(Section):
    """How often workers are started again, by what ended them."""

    program: int = Field(3, ge=0, json_schema_extra=PLACEMENT)
    """Of errors that the program raised: most would be raised again."""
    infrastructure: int = Field(10, ge=0, json_schema_extra=PLACEMENT)
    """Of workers that were killed, crashed or hung."""
    preemptions: int = Field(1000, ge=0, json_schema_extra=PLACEMENT)
    """Of workers that were asked to stop by somebody else than this run, and saved."""
    without_progress: int = Field(3, ge=0, json_schema_extra=PLACEMENT)
    """In a row without a new checkpoint, whatever the cause."""


class TimeoutsConfig(Section):
    """How long a rank may be silent: each time-out is longer than the one before it."""

    heartbeat_s: float = Field(30.0, ge=0, json_schema_extra=PLACEMENT)
    """Silence within training after which a rank is named and the run restarts, or 5 times the 99th
    percentile of its steps if that is longer; 0 leaves it to the collectives."""
    collective_s: float = Field(600.0, gt=0, json_schema_extra=PLACEMENT)
    """Wait for other ranks in one exchange; and silence while starting, saving or validating."""
    job_s: float = Field(0.0, ge=0, json_schema_extra=PLACEMENT)
    """Wall time after which the run saves and stops; 0 for none."""

    @model_validator(mode="after")
    def _ladder(self) -> "TimeoutsConfig":
        ladder = [(name, value) for name, value in self if value]
        for (short, less), (long, more) in itertools.pairwise(ladder):
            if less >= more:
                raise ValueError(
                    f"timeouts.{short} = {less:g} has to be shorter than timeouts.{long} = {more:g}: what is "
                    "wrong would be heard from those who only wait for it"
                )
        return self
