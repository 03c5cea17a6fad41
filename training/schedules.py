"""Learning rate as a pure function of the step."""

import math
from collections.abc import Callable

from training.config import Config
from training.sections import ScheduleConfig


def learning_rate(step: int, config: Config) -> float:
    """The rate for optimizer step `step` (counted from 1) of `run.steps`.

    Linear warm-up, then what `FALLING` takes down to `min_ratio` of the peak, or `DECAYING` no further.
    """
    schedule, total = config.schedule, config.run.steps
    warmup = math.ceil(schedule.warmup_share * total)
    if step <= warmup:
        return config.optimizer.lr * step / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    if schedule.name == "wsd":
        # Hu et al. 2024: a stable stretch, then a fall over a share of the whole run.
        progress = max(0.0, (step - (1 - schedule.decay_share) * total) / (schedule.decay_share * total))
    if schedule.name in FALLING:
        share = schedule.min_ratio + (1 - schedule.min_ratio) * FALLING[schedule.name](
            min(1.0, progress), schedule
        )
    elif schedule.name == "inverse_sqrt":
        # Vaswani et al. 2017.
        share = max(schedule.min_ratio, math.sqrt(max(1, warmup) / step))
    else:
        share = max(schedule.min_ratio, DECAYING[schedule.name](progress, schedule))
    return config.optimizer.lr * share


def _half_cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


def _restarting(progress: float, schedule: ScheduleConfig) -> float:
    cycle = progress * schedule.num_cycles
    return 0.0 if progress == 1 else _half_cosine(cycle % 1)


Shape = Callable[[float, ScheduleConfig], float]
FALLING: dict[str, Shape] = {
    "constant": lambda progress, schedule: 1.0,
    "linear": lambda progress, schedule: 1 - progress,
    "cosine": lambda progress, schedule: _half_cosine(progress),  # Loshchilov and Hutter 2017
    "wsd": lambda progress, schedule: 1 - progress,
    "restarts": _restarting,  # Loshchilov and Hutter 2017, SGDR, with cycles of one length
    "polynomial": lambda progress, schedule: (1 - progress) ** schedule.power,
}
"""Progress after the warm-up, 0 to 1 -> share of the way from the floor to the peak."""
DECAYING: dict[str, Shape] = {
    "step": lambda progress, schedule: (
        schedule.factor ** math.floor(progress * (schedule.num_drops + 1) - 1e-9)
    ),
    "exponential": lambda progress, schedule: schedule.factor**progress,
    "power": lambda progress, schedule: (1 + progress / schedule.decay_share) ** -schedule.power,
}
"""Progress -> share of the peak; the floor is where it stops."""
