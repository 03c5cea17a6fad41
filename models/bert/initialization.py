"""Initial weights of an encoder, each number a pure function of (seed, parameter name, index)."""

import math

import numpy as np

from models.bert.config import EncoderConfig
from models.bert.sizes import EMBEDDINGS, parameter_shapes
from models.initialization import scheme_values, standard_normal

BERT_STD = 0.02


def initial_values(name: str, start: int, stop: int, config: EncoderConfig, seed: int) -> np.ndarray:
    """Numbers start..stop-1 (float32) of the flattened parameter `name`.

    Biases are zero, norm gains one. Embeddings are normal with deviation 0.02, and so are matrices at every
    depth (Devlin et al. 2018), unless `config.initialization` names another scheme; that of a reward's head
    has deviation 1/sqrt(D + 1) (Stiennon et al. 2020).
    """
    if name.endswith(".bias"):
        return np.zeros(stop - start, np.float32)
    if name.endswith("norm.weight"):
        return np.ones(stop - start, np.float32)
    if config.initialization != "bert" and name not in EMBEDDINGS:
        shape = parameter_shapes(config)[name]
        return scheme_values(name, start, stop, shape, config.initialization, seed)
    if config.head == "reward" and name == "classifier.weight":
        return standard_normal(name, start, stop, seed) / np.float32(math.sqrt(config.width + 1))
    return standard_normal(name, start, stop, seed) * np.float32(BERT_STD)
