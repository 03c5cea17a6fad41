"""Initial weights as a pure function of (seed, parameter name, index).

A parameter is drawn in blocks of 65,536 numbers, each from its own counter-based generator, so
that whoever holds rows 300..400 of it draws those rows alone and gets what one process would
have got: initial weights cannot depend on the number of ranks or on the order of drawing.
"""

import math

import numpy as np

from models.config import ModelConfig
from seedbed.randomness import generator

BLOCK = 65_536
GPT2_STD = 0.02


def standard_deviation(name: str, config: ModelConfig) -> float:
    """Radford et al. 2019: 0.02, and residual outputs scaled by 1/sqrt(2 x layers)."""
    if name.endswith(("attention.output.weight", "mlp.down.weight")):
        return GPT2_STD / math.sqrt(2 * config.num_layers)
    return GPT2_STD


def initial_values(name: str, start: int, stop: int, config: ModelConfig, seed: int) -> np.ndarray:
    """Numbers start..stop-1 (float32) of the flattened parameter `name`.

    Matrices and embeddings are normal, biases are zero, norm gains are one.
    """
    if name.endswith(".bias"):
        return np.zeros(stop - start, np.float32)
    if "norm." in name:
        return np.ones(stop - start, np.float32)
    out = np.empty(stop - start, np.float32)
    std = np.float32(standard_deviation(name, config))
    for block in range(start // BLOCK, -(-stop // BLOCK)):
        values = generator(seed, "init", name, block).standard_normal(BLOCK, np.float32)
        low, high = max(start, block * BLOCK), min(stop, (block + 1) * BLOCK)
        out[low - start : high - start] = values[low - block * BLOCK : high - block * BLOCK] * std
    return out
