"""A decoder that gives numbers instead of tokens: a reward per sequence, or a value per position.

Heads of encoders are in models/bert/tasks.py.

Shapes: B batch, T time, D width.
"""

import torch
from torch import Tensor, nn

from models.config import ModelConfig
from models.sizes import parameter_shapes
from models.transformer import Transformer


class RewardModel(Transformer):
    """One number per sequence [B], read from the state of its last token (Ouyang et al. 2022, InstructGPT).

    All but `reward.weight` is named as in the language model that it starts from.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.head = None
        self.reward = nn.Linear(config.width, 1, bias=False)

    def forward(self, tokens_BT: Tensor, valid_BT: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """`valid_BT` is False on padding, which comes after a sequence."""
        scores_BT = self.scores(tokens_BT)
        if valid_BT is None:
            return scores_BT[:, -1]
        positions_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
        last_B1 = (positions_T * valid_BT).amax(1, keepdim=True)
        return scores_BT.gather(1, last_B1).squeeze(1)

    def scores(self, tokens_BT: Tensor) -> Tensor:
        """[B, T]: the number after each token; the value function of reinforcement learning."""
        return self.reward(self.hidden(tokens_BT)).squeeze(-1)


def reward_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Canonical name -> shape of every parameter of a `RewardModel`."""
    shapes = {name: shape for name, shape in parameter_shapes(config).items() if name != "head.weight"}
    return shapes | {"reward.weight": (1, config.width)}
