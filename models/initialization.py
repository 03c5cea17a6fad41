"""Initial weights as a pure function of (seed, parameter name, index).

A parameter is drawn in blocks of 65,536 numbers, each from its own counter-based generator, so
that whoever holds rows 300..400 of it draws those rows alone and gets what one process would
have got: initial weights cannot depend on the number of ranks or on the order of drawing.

An orthogonal matrix has no part that could be drawn alone. Whoever holds some of its rows draws all of
it and factorises it, in float64: some 4 n^2 m operations for the larger side m and the smaller n, about
seven seconds of one core for 4,096 x 4,096, and three times its memory meanwhile.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from models import mup
from models.config import ModelConfig
from models.sizes import LORA_A, LORA_B, Shapes, parameter_shapes, reward_head_shapes
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
TABLES = ("embedding.weight", "positions.weight")
"""Matrices that select rows and do not add up: no scheme speaks of their inputs."""

Scheme = Literal["lecun", "xavier", "he", "orthogonal"]


def initial_values(name: str, start: int, stop: int, config: ModelConfig, seed: int) -> np.ndarray:
    """Numbers start..stop-1 (float32) of the flattened parameter `name`.

    Biases are zero, norm gains one, embeddings normal; matrices by `config.initialization`.
    """
    if name.endswith((".bias", ".log_temperature", LORA_B)):
        return np.zeros(stop - start, np.float32)
    if "norm." in name:
        return np.ones(stop - start, np.float32)
    if name.endswith(LORA_A):
        return standard_normal(name, start, stop, seed) * np.float32(adapter_deviation(name, config))
    if config.initialization != "gpt2" and name not in TABLES:
        return scheme_values(name, start, stop, _shapes(config)[name], config.initialization, seed)
    return standard_normal(name, start, stop, seed) * np.float32(standard_deviation(name, config))


def standard_deviation(name: str, config: ModelConfig) -> float:
    """Of matrix `name` under "gpt2", and of the embeddings under every scheme.

    1/sqrt(D + 1) for the head of a reward model (Stiennon et al. 2020), D being the base model's with muP.
    Else 0.02, and residual outputs scaled by 1/sqrt(2 x layers), one for each sum that the residual stream
    goes through (Radford et al. 2019); with muP, that of the base model made smaller where the width asks for
    it.
    """
    if name == "reward.weight":
        return 1 / math.sqrt((config.mup_base_width or config.width) + 1)
    num_sums = 2 * config.num_layers if name.endswith(RESIDUAL_OUTPUTS) else 1
    return GPT2_STD / math.sqrt(num_sums) * mup.initial_scale(name, config)


def adapter_deviation(name: str, config: ModelConfig) -> float:
    """1/sqrt(3 n) for n inputs: that of the uniform numbers which the code of Hu et al. 2021 (LoRA) draws."""
    return 1 / math.sqrt(3 * _shapes(config)[name][-1])


def scheme_values(
    name: str, start: int, stop: int, shape: tuple[int, ...], scheme: Scheme, seed: int
) -> np.ndarray:
    """Numbers start..stop-1 (float32) of a matrix of `shape` [..., m outputs, n inputs], or of several.

    Normal with variance 1/n for lecun (LeCun et al. 1998), 2/(n + m) for xavier (Glorot and Bengio 2010), 2/n
    for he (He et al. 2015); with orthonormal rows or columns, whichever are fewer, for orthogonal
    (Saxe et al. 2014).
    """
    *_, num_out, num_in = shape
    if scheme == "orthogonal":
        return _in_blocks(
            start, stop, num_out * num_in, lambda index: _orthogonal(name, index, num_out, num_in, seed)
        )
    variance = {"lecun": 1 / num_in, "xavier": 2 / (num_in + num_out), "he": 2 / num_in}[scheme]
    return standard_normal(name, start, stop, seed) * np.float32(math.sqrt(variance))


def standard_normal(name: str, start: int, stop: int, seed: int) -> np.ndarray:
    """Draws start..stop-1 (float32) that belong to parameter `name`, the same however they are cut."""
    return _in_blocks(
        start,
        stop,
        BLOCK,
        lambda block: generator(seed, "init", name, block).standard_normal(BLOCK, np.float32),
    )


def _in_blocks(start: int, stop: int, size: int, block: Callable[[int], np.ndarray]) -> np.ndarray:
    """Numbers start..stop-1 (float32) of what is made in blocks of `size`, and only of those needed."""
    out = np.empty(stop - start, np.float32)
    for index in range(start // size, -(-stop // size)):
        low, high = max(start, index * size), min(stop, (index + 1) * size)
        out[low - start : high - start] = block(index)[low - index * size : high - index * size]
    return out


# Whoever reads a matrix piece by piece reads one to its end before the next.
@lru_cache(maxsize=1)
def _orthogonal(name: str, index: int, num_out: int, num_in: int, seed: int) -> np.ndarray:
    """Matrix `index` of parameter `name`, flattened: the Q of a normal matrix, uniform over all such.

    The signs of R's diagonal are moved into Q, which only then is uniform (Mezzadri 2007). The order in
    which sums are taken depends on the number of threads, so there is one.
    """
    import torch

    size = num_out * num_in
    normal = standard_normal(name, index * size, (index + 1) * size, seed).reshape(num_out, num_in)
    tall = torch.from_numpy(normal if num_out >= num_in else normal.T).double()
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        q, r = torch.linalg.qr(tall)
    finally:
        torch.set_num_threads(num_threads)
    q *= r.diagonal().sign()
    return (q if num_out >= num_in else q.T).float().flatten().numpy()


@lru_cache(maxsize=4)
def _shapes(config: ModelConfig) -> Shapes:
    """With the head of a reward model, which can be built around any decoder's configuration."""
    return {**parameter_shapes(config), **reward_head_shapes(config)}


def initialize(model: "nn.Module", config: ModelConfig, seed: int) -> None:
    """Give every parameter of a model that is whole and on a real device its initial values."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = initial_values(name, 0, parameter.numel(), config, seed)
            parameter.copy_(torch.from_numpy(values).view(parameter.shape))
