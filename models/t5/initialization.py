"""Initial weights of a T5, each number a pure function of (seed, parameter name, index)."""

import numpy as np

from models.initialization import standard_normal
from models.t5.config import T5Config


def standard_deviation(name: str, config: T5Config) -> float:
    """1 / sqrt(inputs), and of queries 1 / sqrt(D K), since scores are not scaled (Raffel et al. 2020).

    The embedding is of deviation 1: as a tied head it gets a state divided by sqrt(D).
    """
    if name == "embedding.weight":
        return 1.0
    if name.endswith(".query.weight"):
        return (config.width * config.head_size) ** -0.5
    if name.endswith(".output.weight"):
        return config.attention_width**-0.5
    if name.endswith("mlp.down.weight"):
        return config.hidden_width**-0.5
    return config.width**-0.5


def initial_values(name: str, start: int, stop: int, config: T5Config, seed: int) -> np.ndarray:
    """Numbers start..stop-1 (float32) of the flattened parameter `name`; norm gains are one."""
    if name.endswith("norm.weight"):
        return np.ones(stop - start, np.float32)
    return standard_normal(name, start, stop, seed) * np.float32(standard_deviation(name, config))
