"""The form of a law: an irreducible loss and one falling power of each quantity.

    L(x) = E + sum_k A_k / x_k^alpha_k

With x = (N, D) it is Hoffmann et al. 2022 (arXiv:2203.15556, equation 2); with one quantity, Kaplan et al.
2020 with an asymptote. Parameters are theta = (ln E, ln A_1, alpha_1, ln A_2, alpha_2, ...): amplitudes stay
positive, and ln L is a log-sum-exp of lines in theta.

Shapes: S fits side by side, P parameters, n points, K quantities.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Pull = Callable[[Array], Array]
"""Derivatives by ln L of each point [S, n] -> derivatives by each parameter [S, P]."""
LARGEST = 300.0
"""Of the logarithm of a term: far beyond any loss, and far from overflow."""


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
        """[K]: the A_k; infinite for one that no number is large enough for."""
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


def log_loss(theta: Array, logs: Array) -> tuple[Array, Pull]:
    """(ln L [S, n], what takes its derivatives by point to those by parameter) of laws `theta` [S, P] at
    ln x = `logs` [n, K]."""
    asymptote = np.exp(np.minimum(theta[:, :1], LARGEST))
    terms = [
        np.exp(np.minimum(theta[:, k, None] - theta[:, k + 1, None] * log, LARGEST))
        for k, log in zip(range(1, theta.shape[1], 2), logs.T, strict=True)
    ]
    total = sum(terms, start=asymptote)

    def pull(slope: Array) -> Array:
        each = slope / total
        gradient = np.empty(theta.shape)
        gradient[:, 0] = asymptote[:, 0] * each.sum(axis=1)
        for k, (term, log) in enumerate(zip(terms, logs.T, strict=True)):
            share = each * term
            gradient[:, 1 + 2 * k] = share.sum(axis=1)
            gradient[:, 2 + 2 * k] = -(share @ log)
        return gradient

    return np.log(total), pull


def jacobian(theta: Array, logs: Array) -> Array:
    """[n, P]: derivatives of ln L of one law `theta` [P] at each point."""
    _, pull = log_loss(np.tile(theta, (len(logs), 1)), logs)
    return pull(np.eye(len(logs)))
