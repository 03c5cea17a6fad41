"""How the rewards that several models give an answer become one (Coste et al. 2023, arXiv:2310.02743).

    mean       the mean: less noise
    worst      the least (worst-case optimisation): what no member likes is not liked
    penalised  mean - c variance (uncertainty-weighted optimisation): disagreement costs

Shapes: M members, N answers.
"""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from seedbed.errors import UsageError, did_you_mean

How = Literal["mean", "worst", "penalised"]
HOW: tuple[str, ...] = get_args(How)


def combine(rewards_MN: NDArray[np.float64], how: str = "mean", penalty: float = 0.5) -> NDArray[np.float64]:
    """[N]; the variance is that of the members as they are, divided by M. UsageError for an unknown `how`."""
    if how not in HOW:
        raise UsageError(
            f"rewards cannot be combined by {how!r}",
            did_you_mean(how, HOW, f"the ways are {', '.join(HOW)}", "'{}'"),
        )
    if how == "worst":
        return rewards_MN.min(axis=0)
    mean_N = rewards_MN.mean(axis=0)
    return mean_N if how == "mean" else mean_N - penalty * rewards_MN.var(axis=0)
