"""Ratings of models from who beat whom: Bradley and Terry's model with ties, on Elo's scale.

Davidson 1970 ("On extending the Bradley-Terry model to accommodate ties in paired comparison experiments"):
with strengths pi and a readiness nu to call a tie,

    P(i beats j) : P(tie) : P(j beats i)  =  pi_i : nu sqrt(pi_i pi_j) : pi_j

theta = log pi and log nu maximise the likelihood, which is concave in them; an Elo difference is 400 log10
of a ratio of strengths. All games count at once: unlike after Elo's updates, their order does not matter.
Intervals are the sandwich's over prompts (games on one prompt are not independent), with as many degrees of
freedom as prompts less one, and of the distance from the mean of all models, which is set to 1000.

Shapes: N games, M models, P parameters, 3 outcomes.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from evals.intervals import Array, clusters_of
from seedbed.errors import DataError
from seedbed.statistics import Estimate, t_quantile
from training.rl.llm_judge import Choice

ELO_PER_NAT = 400 / math.log(10)
MEAN = 1000.0
OUTCOMES: tuple[Choice, ...] = ("first", "tie", "second")


class Game(NamedTuple):
    """One comparison of two models' answers to a prompt."""

    first: str
    second: str
    choice: Choice
    prompt: Hashable


REFERENCE = "reference"
"""Who gave the answers that the data have, where it takes part."""


@dataclass(frozen=True)
class Ratings:
    """Elo points with 95 % intervals, the strongest model first."""

    elo: dict[str, Estimate]
    tie_readiness: float
    """nu: at 1, equal models tie one game in three; 0 without any tie."""
    games: int
    covariance: Array
    """[M, M] of the points, in the order of `elo`."""
    freedom: float

    def difference(self, first: str, second: str) -> Estimate:
        """Points that the first has more, with an interval: narrower than two intervals beside each other
        suggest."""
        names = list(self.elo)
        i, j = names.index(first), names.index(second)
        value = self.elo[first].value - self.elo[second].value
        variance = self.covariance[i, i] + self.covariance[j, j] - 2 * self.covariance[i, j]
        reach = t_quantile(0.975, self.freedom) * math.sqrt(max(0.0, variance))
        return Estimate(value, value - reach, value + reach)

    def wins(self, first: str, second: str) -> float:
        """Expected share of wins, a tie counting half."""
        half = (self.elo[first].value - self.elo[second].value) / ELO_PER_NAT / 2
        win, tie, loss = math.exp(half), self.tie_readiness, math.exp(-half)
        return (win + tie / 2) / (win + tie + loss)


def rate(games: Sequence[Game]) -> Ratings:
    """Maximum likelihood. DataError where it has no maximum: models that never met, even over others, some
    that lost no game to the rest, or ties alone."""
    names = sorted({name for game in games for name in (game.first, game.second)})
    if len(names) < 2:
        raise DataError("ratings need games between two models or more", "compare models pair by pair")
    _check_connected(games, names)
    if all(game.choice == "tie" for game in games):
        raise DataError(
            f"all of {len(games)} games are ties: nobody is above another", "ask about more prompts"
        )
    has_ties = any(game.choice == "tie" for game in games)
    features_N3P = _features(games, names, has_ties)
    chosen_N = np.array([OUTCOMES.index(game.choice) for game in games])
    beta_P, probabilities_N3 = _maximum(features_N3P, chosen_N)

    expected_NP = np.einsum("no,nop->np", probabilities_N3, features_N3P)
    scores_NP = features_N3P[np.arange(len(games)), chosen_N] - expected_NP
    clusters = clusters_of([game.prompt for game in games])
    bread_PP = np.linalg.inv(_information(features_N3P, probabilities_N3))
    meat_GP = clusters.sums(scores_NP)
    robust_PP = bread_PP @ (meat_GP.T @ meat_GP) @ bread_PP
    freedom = clusters.num - 1.0
    if freedom:
        robust_PP *= clusters.num / freedom

    basis_MP = _basis(len(names), len(beta_P))
    points_M = MEAN + ELO_PER_NAT * basis_MP @ beta_P
    covariance_MM = ELO_PER_NAT**2 * basis_MP @ robust_PP @ basis_MP.T
    order = np.argsort(-points_M, kind="stable")
    errors_M = np.sqrt(np.maximum(0, covariance_MM.diagonal()))
    reach = t_quantile(0.975, freedom) if freedom else math.inf
    return Ratings(
        elo={
            names[m]: Estimate(
                float(points_M[m]),
                float(points_M[m] - reach * errors_M[m]),
                float(points_M[m] + reach * errors_M[m]),
            )
            for m in order.tolist()
        },
        tie_readiness=math.exp(float(beta_P[-1])) if has_ties else 0.0,
        games=len(games),
        covariance=covariance_MM[np.ix_(order, order)],
        freedom=max(1.0, freedom),
    )


def _basis(num_models: int, num_parameters: int) -> Array:
    """[M, P] theta of the parameters: they sum to 0, and log nu is no part of them."""
    basis_MP = np.zeros((num_models, num_parameters))
    basis_MP[:-1, : num_models - 1] = np.eye(num_models - 1)
    basis_MP[-1, : num_models - 1] = -1
    return basis_MP


def _features(games: Sequence[Game], names: Sequence[str], has_ties: bool) -> Array:
    """[N, 3, P] of which beta makes the log-odds of the outcomes."""
    place = {name: number for number, name in enumerate(names)}
    basis_MP = _basis(len(names), len(names) - 1 + has_ties)
    first_NP = basis_MP[[place[game.first] for game in games]]
    second_NP = basis_MP[[place[game.second] for game in games]]
    tie_NP = (first_NP + second_NP) / 2
    if has_ties:
        tie_NP[:, -1] = 1
    return np.stack([first_NP, tie_NP, second_NP], axis=1)


def _maximum(features_N3P: Array, chosen_N: Array) -> tuple[Array, Array]:
    """Newton's method on a concave likelihood, halving steps that go too far."""
    rows = np.arange(len(chosen_N))
    # Without ties among the games, none may be expected either.
    barred_3 = np.zeros(3) if (chosen_N == 1).any() else np.array([0.0, -math.inf, 0.0])

    def at(beta_P: Array) -> tuple[float, Array]:
        logits_N3 = features_N3P @ beta_P + barred_3
        logits_N3 -= logits_N3.max(axis=1, keepdims=True)
        log_probs_N3 = logits_N3 - np.log(np.exp(logits_N3).sum(axis=1, keepdims=True))
        return float(log_probs_N3[rows, chosen_N].sum()), np.exp(log_probs_N3)

    beta_P = np.zeros(features_N3P.shape[2])
    value, probabilities_N3 = at(beta_P)
    for _ in range(100):
        expected_NP = np.einsum("no,nop->np", probabilities_N3, features_N3P)
        slope_P = (features_N3P[rows, chosen_N] - expected_NP).sum(axis=0)
        step_P = np.linalg.solve(_information(features_N3P, probabilities_N3), slope_P)
        while (found := at(beta_P + step_P))[0] < value - 1e-9 * abs(value):
            step_P = step_P / 2
        beta_P, (value, probabilities_N3) = beta_P + step_P, found
        if float(np.abs(step_P).max()) < 1e-9:
            break
    return beta_P, probabilities_N3


def _information(features_N3P: Array, probabilities_N3: Array) -> Array:
    """[P, P] Fisher's, of all games."""
    expected_NP = np.einsum("no,nop->np", probabilities_N3, features_N3P)
    squares_PP = np.einsum("no,nop,noq->pq", probabilities_N3, features_N3P, features_N3P)
    return squares_PP - expected_NP.T @ expected_NP


def _check_connected(games: Sequence[Game], names: Sequence[str]) -> None:
    """Ford 1957: in every division into two, some model of each side has won or tied against the other's."""
    beaten: dict[str, set[str]] = {name: set() for name in names}
    for game in games:
        if game.choice != "second":
            beaten[game.first].add(game.second)
        if game.choice != "first":
            beaten[game.second].add(game.first)
    turned = {name: {other for other in names if name in beaten[other]} for name in names}
    for graph in (beaten, turned):
        reached, ahead = {names[0]}, [names[0]]
        while ahead:
            new = graph[ahead.pop()] - reached
            reached |= new
            ahead += new
        if len(reached) < len(names):
            rest = sorted(set(names) - reached)
            winners, losers = (sorted(reached), rest) if graph is turned else (rest, sorted(reached))
            raise DataError(
                f"{', '.join(winners)} lost and tied no game against {', '.join(losers)}, or they never met: "
                "no finite ratings explain that",
                "compare on more prompts, or leave these models out",
            )
