"""A decoder that gives numbers instead of tokens: a reward per sequence, or a value per position.

Heads of encoders are in models/bert/tasks.py.

Shapes: B batch, T time, D width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import ModelConfig
from models.sizes import parameter_shapes, reward_head_shapes
from models.transformer import Transformer


class RewardHead(nn.Module):
    """w h + b. `b` is set when rewards are normalised, and never learned: preferences say nothing of it.

    `log_temperature` is that of the raters' noise, for an objective that learns it.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, width).normal_(std=(width + 1) ** -0.5))
        self.bias = nn.Parameter(torch.zeros(1))
        self.log_temperature = nn.Parameter(torch.zeros(1))

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., D] -> [...]."""
        return F.linear(hidden, self.weight, kept(self.bias)).squeeze(-1)


class RewardModel(Transformer):
    """One number per sequence [B], read from the state of its last token (Ouyang et al. 2022, InstructGPT).

    All but the head is named as in the language model that it starts from.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.head = None
        self.reward = RewardHead(config.width)

    def forward(self, tokens_BT: Tensor, valid_BT: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """`valid_BT` is False on padding, which comes after a sequence."""
        return self.read(self.hidden(tokens_BT), valid_BT)

    def read(self, hidden_BTD: Tensor, valid_BT: Tensor | None = None) -> Tensor:
        """[B]: the rewards of sequences whose hidden states these are."""
        scores_BT = self.reward(hidden_BTD)
        if valid_BT is None:
            return scores_BT[:, -1]
        positions_T = torch.arange(hidden_BTD.shape[1], device=hidden_BTD.device)
        last_B1 = (positions_T * valid_BT).amax(1, keepdim=True)
        return scores_BT.gather(1, last_B1).squeeze(1)

    def scores(self, tokens_BT: Tensor) -> Tensor:
        """[B, T]: the number after each token; the value function of reinforcement learning."""
        return self.reward(self.hidden(tokens_BT))


def kept(parameter: Tensor) -> Tensor:
    """A parameter that is read and does not learn.

    Its gradient is zero and not absent: engines wait for the gradients of all parameters.
    """
    return parameter.detach() + 0 * parameter


def reward_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Canonical name -> shape of every parameter of a `RewardModel`."""
    shapes = {name: shape for name, shape in parameter_shapes(config).items() if name != "head.weight"}
    return shapes | reward_head_shapes(config)
