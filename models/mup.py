"""Maximal-update parametrisation: one learning rate for every width (Yang et al. 2022, "Tensor Programs V").

A wide model is described by how it departs from a base model, m = width / base width times narrower; at m = 1
nothing departs and all is as in the standard parametrisation. For Adam (table 8, the form in which head and
embedding may share their weights):

                                                      initial deviation    learning rate    in the forward
    embeddings, biases, gains of norms                       1                   1
    hidden matrices, from wide to wide                       1/sqrt(m)           1/m
    a few numbers from the state: routers, gates             1/m                 1/m
    head (or tied embedding), reward                         1                   1           logits x 1/m
    attention scores q k of heads of size K, at the base K_0                                 q k sqrt(K_0) / K

Decoupled weight decay multiplies a weight by 1 - learning rate x decay in each step. So that it forgets as
fast at every width, the decay of matrices with a smaller rate is larger by as much (Wang and Aitchison 2024,
"How to set AdamW's weight decay as you scale model and dataset size"). Adam's epsilon is left alone: it must
be small beside gradients, which shrink as the width grows.

Taken for granted: hidden widths of MLPs and experts, heads x head size, and heads of keys and values x
head size, grow in proportion to the width; depth, vocabulary, context and the number of experts do not.
"""

import math
from typing import Literal

from models.config import ModelConfig

Kind = Literal["input", "hidden", "choice", "output"]


def kind_of(name: str) -> Kind:
    """Which of its two sides grow with the width: parameter `name`'s row in the table above."""
    if name in ("head.weight", "reward.weight"):
        return "output"
    if name in ("embedding.weight", "positions.weight", "reward.log_temperature"):
        return "input"
    if name.endswith(".bias") or "norm." in name:
        return "input"
    if name.endswith(("mlp.router.weight", "mlp.shared_gate.weight")):
        return "choice"
    return "hidden"


def width_ratio(config: ModelConfig) -> float:
    """m; 1 in the standard parametrisation."""
    return config.width / config.mup_base_width if config.mup_base_width else 1.0


def initial_scale(name: str, config: ModelConfig) -> float:
    """What the base model's initial deviation of parameter `name` is multiplied by."""
    m = width_ratio(config)
    return {"input": 1.0, "hidden": 1 / math.sqrt(m), "choice": 1 / m, "output": 1.0}[kind_of(name)]


def learning_rate_scale(name: str, config: ModelConfig) -> float:
    """What the learning rate of Adam is multiplied by for parameter `name`."""
    return 1 / width_ratio(config) if kind_of(name) in ("hidden", "choice") else 1.0


def output_multiplier(config: ModelConfig) -> float:
    """What the last hidden state is multiplied by on its way to the head."""
    return 1 / width_ratio(config)


def score_divisor(config: ModelConfig) -> float:
    """What attention scores are divided by beside sqrt(K): sqrt(K / K_0)."""
    if not config.mup_base_head_width:
        return 1.0
    return math.sqrt(config.head_size / config.mup_base_head_width)
