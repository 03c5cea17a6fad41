"""Initial weights of an encoder, each number a pure function of (seed, parameter name, index)."""

import numpy as np

from models.bert.config import EncoderConfig
from models.initialization import BLOCK
from seedbed.randomness import generator

BERT_STD = 0.02


def initial_values(name: str, start: int, stop: int, config: EncoderConfig, seed: int) -> np.ndarray:
    """Numbers start..stop-1 (float32) of the flattened parameter `name` (Devlin et al. 2018).

    Matrices and embeddings are normal, with deviation 0.02 at every depth; biases are zero, norm gains one.
    """
    if name.endswith(".bias"):
        return np.zeros(stop - start, np.float32)
    if name.endswith("norm.weight"):
        return np.ones(stop - start, np.float32)
    return standard_normal(name, start, stop, seed) * np.float32(BERT_STD)


def standard_normal(name: str, start: int, stop: int, seed: int) -> np.ndarray:
    """Draws start..stop-1 (float32) that belong to parameter `name`, the same however they are cut."""
    out = np.empty(stop - start, np.float32)
    for block in range(start // BLOCK, -(-stop // BLOCK)):
        values = generator(seed, "init", name, block).standard_normal(BLOCK, np.float32)
        low, high = max(start, block * BLOCK), min(stop, (block + 1) * BLOCK)
        out[low - start : high - start] = values[low - block * BLOCK : high - block * BLOCK]
    return out
