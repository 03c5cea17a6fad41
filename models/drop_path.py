"""Stochastic depth: in training, a sample goes around a sub-layer with some probability (Huang et al. 2016).

The deeper the layer, the likelier: layer l of L is left out with probability l / L times that of the last.
What is kept is divided by the probability of being kept, so that nothing changes when all layers are used.
"""

import torch
from torch import Tensor


def drop_rate(last: float, layer: int, num_layers: int) -> float:
    """The probability of leaving out layer 0, 1, ... of `num_layers`."""
    return last * (layer + 1) / num_layers


def drop_path(branch_BTD: Tensor, rate: float, training: bool) -> Tensor:
    """What a sub-layer adds to each sample's stream: nothing with probability `rate`."""
    if not (training and rate):
        return branch_BTD
    keeps_B11 = torch.rand(len(branch_BTD), 1, 1, device=branch_BTD.device) >= rate
    return branch_BTD * (keeps_B11 / (1 - rate)).to(branch_BTD.dtype)
