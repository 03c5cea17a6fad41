"""Initial weights as a pure function of (seed, parameter name, index).

A parameter is drawn in blocks of 65,536 numbers, each from its own counter-based generator, so
that whoever holds rows 300..400 of it draws those rows alone and gets what one process would
have got: initial weights cannot depend on the number of ranks or on the order of drawing.
"""

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from models.config import ModelConfig
from models.sizes import Shapes, parameter_shapes
from seedbed.randomness import generator

if TYPE_CHECKING:
    from torch import nn

BLOCK = 65_536
GPT2_STD = 0.02
RESIDUAL_OUTPUTS = (
    "attention.output.weight",
    "mlp.down.weight",
    "mlp.experts.down",
    "mlp.shared.down.weight",
)


def standard_deviation(name: str, config: ModelConfig) -> float:
    """Of the normal distribution that matrix `name` is drawn from, by `config.initialization`.

    gpt2: 0.02, and residual outputs scaled by 1/sqrt(2 x layers), one for each sum that the residual
    stream goes through (Radford et al. 2019). With n inputs and m outputs, the variance is 1/n for
    lecun (LeCun et al. 1998), 2/(n + m) for xavier (Glorot and Bengio 2010), 2/n for he (He et al. 2015);
    embeddings, which select and do not add up, stay at 0.02.
    """
    if config.initialization != "gpt2" and name not in ("embedding.weight", "positions.weight"):
        *_, num_out, num_in = _shapes(config)[name]
        variances = {"lecun": 1 / num_in, "xavier": 2 / (num_in + num_out), "he": 2 / num_in}
        return math.sqrt(variances[config.initialization])
    if name.endswith(RESIDUAL_OUTPUTS):
        return GPT2_STD / math.sqrt(2 * config.num_layers)
    return GPT2_STD


@lru_cache(maxsize=4)
def _shapes(config: ModelConfig) -> Shapes:
    return parameter_shapes(config)


def initial_values(name: str, start: int, stop: int, config: ModelConfig, seed: int) -> np.ndarray:
    """Numbers start..stop-1 (float32) of the flattened parameter `name`.

    Matrices and embeddings are normal, biases are zero, norm gains are one.
    """
    if name.endswith(".bias"):
        return np.zeros(stop - start, np.float32)
    if "norm." in name:
        return np.ones(stop - start, np.float32)
    return standard_normal(name, start, stop, seed) * np.float32(standard_deviation(name, config))


def standard_normal(name: str, start: int, stop: int, seed: int) -> np.ndarray:
    """Draws start..stop-1 (float32) that belong to parameter `name`, the same however they are cut."""
    out = np.empty(stop - start, np.float32)
    for block in range(start // BLOCK, -(-stop // BLOCK)):
        values = generator(seed, "init", name, block).standard_normal(BLOCK, np.float32)
        low, high = max(start, block * BLOCK), min(stop, (block + 1) * BLOCK)
        out[low - start : high - start] = values[low - block * BLOCK : high - block * BLOCK]
    return out


def initialize(model: "nn.Module", config: ModelConfig, seed: int) -> None:
    """Give every parameter of a model that is whole and on a real device its initial values."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = initial_values(name, 0, parameter.numel(), config, seed)
            parameter.copy_(torch.from_numpy(values).view(parameter.shape))
