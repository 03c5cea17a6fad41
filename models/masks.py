"""Which earlier tokens a token sees, and how much farther ones count for less.

Shapes: B batch, H heads, T new tokens, S all tokens so far.
"""

import torch
from torch import Tensor

from models.config import ModelConfig
from models.positions import alibi_slopes


def attention_mask(
    config: ModelConfig, past: int, new: int, device: torch.device, documents_BS: Tensor | None = None
) -> Tensor | None:
    """What is added to the scores of `new` tokens after `past` ones: [1 or B, 1 or H, T, S].

    Boolean (true is visible), or floating for ALiBi; None where causality alone, or seeing everything,
    says it all. A token sees itself and what is before it, inside its own document and window.
    """
    total = past + new
    windowed = 0 < config.window < total
    alibi = config.positions == "alibi"
    if documents_BS is None and not windowed and not alibi and (past == 0 or new == 1):
        return None
    index_S = torch.arange(total, device=device)
    distance_TS = index_S[past:, None] - index_S
    visible_BHTS = (distance_TS >= 0)[None, None]
    if windowed:
        visible_BHTS = visible_BHTS & (distance_TS < config.window)
    if documents_BS is not None:
        same_BTS = documents_BS[:, past:, None] == documents_BS[:, None, :]
        visible_BHTS = visible_BHTS & same_BTS[:, None]
    return _with_alibi(visible_BHTS, distance_TS, config) if alibi else visible_BHTS


def ragged_mask(config: ModelConfig, positions_BT: Tensor, total: int) -> Tensor:
    """The same for rows that are not at the same position: [B, 1 or H, T, total]."""
    distance_B1TS = (positions_BT[..., None] - torch.arange(total, device=positions_BT.device))[:, None]
    visible_B1TS = distance_B1TS >= 0
    if config.window:
        visible_B1TS = visible_B1TS & (distance_B1TS < config.window)
    return _with_alibi(visible_B1TS, distance_B1TS, config) if config.positions == "alibi" else visible_B1TS


def _with_alibi(visible_BHTS: Tensor, distance: Tensor, config: ModelConfig) -> Tensor:
    slopes_H11 = torch.tensor(alibi_slopes(config.num_heads), device=distance.device)[:, None, None]
    return (-slopes_H11 * distance).masked_fill(~visible_BHTS, -torch.inf)
