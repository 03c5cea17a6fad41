"""How far a policy has gone from its reference, and the coefficient that keeps it near.

Estimators of KL(pi, pi_ref) from samples of pi, with x = log pi - log pi_ref (Schulman 2020, "Approximating
KL divergence"): k1 = x and k3 = exp(-x) - 1 + x are unbiased, k2 = x^2 / 2 is not, but has little variance;
k2 and k3 are never negative. As a loss, on samples of pi, k2 has the gradient
of KL(pi, pi_ref), k3 that of KL(pi_ref, pi), and k1 none in expectation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def k1(x: Tensor) -> Tensor:
    return x


def k2(x: Tensor) -> Tensor:
    return x.square() / 2


def k3(x: Tensor) -> Tensor:
    return torch.expm1(-x) + x


ESTIMATORS: dict[str, Callable[[Tensor], Tensor]] = {"k1": k1, "k2": k2, "k3": k3}
"""Name -> what estimates the divergence of each token."""


@dataclass
class KlController:
    """The coefficient beta of the divergence in the reward; fixed unless there is a target.

    Ziegler et al. 2019, "Fine-tuning language models from human preferences", section 2.2: the error is
    clip(KL / target - 1, -0.2, 0.2), and beta grows by the factor 1 + error n / horizon after n answers. KL
    is the *sum* over an answer, averaged over answers: a mean over tokens would make the target depend on
    length.
    """

    coefficient: float
    target: float | None = None
    horizon: int = 10_000

    def update(self, kl_of_answer: float, num_answers: int) -> None:
        """After a batch of `num_answers`, whose mean summed divergence was `kl_of_answer` nats."""
        if self.target is not None:
            error = min(max(kl_of_answer / self.target - 1, -0.2), 0.2)
            self.coefficient *= 1 + error * num_answers / self.horizon

    def state(self) -> dict[str, Any]:
        """What a run that goes on has to know."""
        return {"coefficient": self.coefficient}

    def load_state(self, state: dict[str, Any]) -> None:
        self.coefficient = float(state["coefficient"])
