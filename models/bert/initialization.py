"""Initial weights of an encoder, each number a pure function of (seed, parameter name, index)."""

import numpy as np

from models.bert.config import EncoderConfig
from models.initialization import standard_normal

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
