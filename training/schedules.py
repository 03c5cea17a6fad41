"""Learning rate as a pure function of the step."""

import math

from training.config import Config


def learning_rate(step: int, config: Config) -> float:
    """The rate for optimizer step `step` (counted from 1) of `run.steps`.

    Linear warm-up, then cosine decay (Loshchilov and Hutter 2017) or a stable stretch with a
    linear decay at the end (warm-up-stable-decay, Hu et al. 2024), down to `min_ratio` of the peak.
    """
    schedule, total = config.schedule, config.run.steps
    warmup = math.ceil(schedule.warmup_share * total)
    if step <= warmup:
        return config.optimizer.lr * step / warmup
    floor = schedule.min_ratio
    share = 1.0
    if schedule.name == "cosine":
        progress = (step - warmup) / max(1, total - warmup)
        share = floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    elif schedule.name == "wsd":
        decay_steps = schedule.decay_share * total
        progress = (step - (total - decay_steps)) / decay_steps
        share = 1 - (1 - floor) * min(1.0, max(0.0, progress))
    return config.optimizer.lr * share
