"""What a law in N and D says to do with a budget, at C = k N D (k = 6: Kaplan et al. 2020, appendix B).

    N* = G (C / k)^a,   D* = (C / k)^b / G,   a = beta / (alpha + beta),   b = 1 - a,
    G = (alpha A / (beta B))^(1 / (alpha + beta))

Hoffmann et al. 2022, equation 4.
"""

from dataclasses import dataclass

import numpy as np

from evals.scaling.laws import Array, Law

FLOPS_PER_PARAMETER_AND_TOKEN = 6.0


@dataclass(frozen=True)
class Optimum:
    """The best use of `compute` FLOP."""

    compute: float
    parameters: float
    tokens: float
    loss: float

    @property
    def tokens_per_parameter(self) -> float:
        return float(self.tokens / np.float64(self.parameters))


def size_exponent(law: Law) -> float:
    """a of N* ~ C^a."""
    alpha, beta = law.exponents
    return float(beta / (alpha + beta))


def compute_optimal(law: Law, compute: float, per: float = FLOPS_PER_PARAMETER_AND_TOKEN) -> Optimum:
    """N and D of the least loss that `compute` FLOP buy, at `per` FLOP per parameter and token."""
    (a_, b_), (alpha, beta) = law.amplitudes, law.exponents
    ratio = (alpha * a_ / (beta * b_)) ** (1 / (alpha + beta))
    # Of a law that hardly knows one of its quantities the optimum is at infinity.
    parameters = ratio * np.float64(compute / per) ** size_exponent(law)
    tokens = compute / per / parameters
    loss = law.loss(np.array([parameters, tokens]))
    return Optimum(compute, float(parameters), float(tokens), float(loss))


def serving_optimal(
    law: Law, compute: float, served_tokens: float, per: float = FLOPS_PER_PARAMETER_AND_TOKEN
) -> Optimum:
    """The least total cost, training and serving `served_tokens`, of the loss that `compute` FLOP buy.

    Serving takes a third of training's FLOP per token: no backward (Sardana and Frankle 2023,
    arXiv:2401.00448).
    """
    target = compute_optimal(law, compute, per)
    largest = target.parameters
    sizes = np.geomspace(largest / 1e3, largest, 20001)
    tokens = _tokens_for(law, sizes, target.loss)
    total = per * sizes * tokens + per / 3 * sizes * served_tokens
    best = int(np.nanargmin(np.where(np.isfinite(tokens), total, np.nan)))
    return Optimum(float(total[best]), float(sizes[best]), float(tokens[best]), target.loss)


def _tokens_for(law: Law, sizes: Array, loss: float) -> Array:
    """Tokens at which models of `sizes` have `loss`; infinite for those that never do."""
    (a_, b_), (alpha, beta) = law.amplitudes, law.exponents
    left = loss - law.asymptote - a_ / sizes**alpha
    return np.where(left > 0, (b_ / np.where(left > 0, left, 1.0)) ** (1 / beta), np.inf)
