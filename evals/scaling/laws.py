"""The form of a law: an irreducible loss and one falling power of each quantity.

    L(x) = E + sum_k A_k / x_k^alpha_k

With x = (N, D) it is Hoffmann et al. 2022 (arXiv:2203.15556, equation 2); with one quantity, Kaplan et al.
2020 with an asymptote. Parameters are theta = (ln E, ln A_1, alpha_1, ln A_2, alpha_2, ...): amplitudes stay
positive, and ln L is a log-sum-exp of lines in theta.

Shapes: S fits side by side, P parameters, n points, K quantities.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Points:
    """What a law is fitted to: runs with their quantities and their losses."""

    quantities: Array
    """[n, K], such as parameters and tokens."""
    losses: Array
    """[n] in nats."""

    def __len__(self) -> int:
        return len(self.losses)

    def take(self, chosen: Sequence[int] | NDArray[np.intp] | NDArray[np.bool_]) -> "Points":
        """Those points alone."""
        return Points(self.quantities[chosen], self.losses[chosen])


@dataclass(frozen=True)
class Law:
    """A fitted law; `names` are those of the quantities."""

    names: tuple[str, ...]
    theta: Array
    """[P]"""

    @property
    def asymptote(self) -> float:
        """E, the loss that no size and no data go below."""
        return float(np.exp(self.theta[0]))

    @property
    def amplitudes(self) -> Array:
        """[K]: the A_k."""
        return np.exp(self.theta[1::2])

    @property
    def exponents(self) -> Array:
        """[K]: the alpha_k."""
        return self.theta[2::2]

    def loss(self, quantities: Array) -> Array:
        """[..., K] -> [...]."""
        logs = np.log(np.asarray(quantities, dtype=np.float64))
        terms = np.exp(self.theta[1::2] - self.theta[2::2] * logs)
        return np.asarray(self.asymptote + terms.sum(axis=-1), dtype=np.float64)


def log_loss(theta: Array, logs: Array) -> tuple[Array, Array]:
    """(ln L [S, n], its gradient [S, n, P]) of laws `theta` [S, P] at ln x = `logs` [n, K]."""
    lines = theta[:, None, 1::2] - theta[:, None, 2::2] * logs
    lines = np.concatenate([np.broadcast_to(theta[:, None, :1], (*lines.shape[:2], 1)), lines], axis=2)
    top = lines.max(axis=2, keepdims=True)
    powers = np.exp(lines - top)
    total = powers.sum(axis=2, keepdims=True)
    shares = powers / total
    gradient = np.empty((*lines.shape[:2], theta.shape[1]))
    gradient[..., 0] = shares[..., 0]
    gradient[..., 1::2] = shares[..., 1:]
    gradient[..., 2::2] = -shares[..., 1:] * logs
    return (top + np.log(total))[..., 0], gradient
