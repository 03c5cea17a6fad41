"""Least squares by variable projection: the exponents are searched, the amplitudes follow by linear algebra.

Golub and Pereyra 1973. For given exponents L = E + sum_k A_k x_k^-alpha_k is linear in E and the A_k, so what
is searched has K dimensions instead of 1 + 2 K and is far better conditioned.
"""

import itertools

import numpy as np
from numpy.typing import NDArray

from evals.scaling.fit import AGREEMENT, Fit, check
from evals.scaling.laws import Array, Law, Points
from seedbed.minimise import minimise


def fit_projected(points: Points, names: tuple[str, ...] = ("N", "D")) -> Fit:
    """The law of least squared error in plain loss. Raises DataError as `fit`, and ValueError when the best
    law has an amplitude that is not positive."""
    check(points, names)
    scale = np.exp(np.log(points.quantities).mean(axis=0))
    logs = np.log(points.quantities / scale)

    def solved(exponents: Array) -> tuple[Array, Array, Array]:
        """[S, K] -> (powers [S, n, K], coefficients [S, 1 + K], residuals [S, n])."""
        powers = np.exp(-exponents[:, None, :] * logs)
        design = np.concatenate([np.ones((*powers.shape[:2], 1)), powers], axis=2)
        factors = np.linalg.pinv(design)
        coefficients = np.einsum("spn,n->sp", factors, points.losses)
        return powers, coefficients, np.einsum("snp,sp->sn", design, coefficients) - points.losses

    def function(exponents: Array, _: NDArray[np.intp]) -> tuple[Array, Array]:
        powers, coefficients, residuals = solved(exponents)
        # The coefficients are optimal, so they add nothing to the derivative.
        gradient = -2 * np.einsum("sn,sk,snk,nk->sk", residuals, coefficients[:, 1:], powers, logs)
        return (residuals**2).sum(axis=1), gradient

    starts = np.array(list(itertools.product((0.1, 0.25, 0.4, 0.6, 0.9), repeat=logs.shape[1])))
    found = minimise(function, starts)
    best = int(np.argmin(found.values))
    _, coefficients, _ = solved(found.points[best : best + 1])
    exponents = found.points[best]
    if (coefficients <= 0).any():
        raise ValueError(f"the best law is not one: its coefficients are {coefficients[0]}")
    theta = np.empty(1 + 2 * len(exponents))
    theta[0] = np.log(coefficients[0, 0])
    theta[1::2] = np.log(coefficients[0, 1:]) + exponents * np.log(scale)
    theta[2::2] = exponents
    value = float(found.values[best])
    agreeing = float((found.values <= value * (1 + AGREEMENT)).mean())
    return Fit(Law(names, theta), value, "squared", len(points), len(starts), agreeing)
