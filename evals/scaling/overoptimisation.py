"""Over-optimisation: how a reward behaves as a policy is optimised against another that stands for it.

With d = sqrt(KL(policy, reference)), in nats of an answer, Gao et al. 2023 (arXiv:2210.10760, section 3) find

    R_RL(d)  = R_0 + d (alpha - beta ln d)       by reinforcement learning
    R_BoN(d) = R_0 + d (alpha - beta d)          by best-of-n

for the gold reward. They measure rewards from that of the policy that is begun with; here R_0 is fitted too,
since its own mean is as noisy as any other. All is linear in (R_0, alpha, beta): there is one least sum of
squares.

Shapes: n points, B resamples.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from evals.scaling.laws import Array
from seedbed.errors import DataError
from seedbed.statistics import Estimate, t_quantile

Form = Literal["rl", "bon"]
NUM_PARAMETERS = 3
FEW_POINTS = 10
NEAR = 1.0
"""Distance, in roots of nats, that a policy has to go for its law to show."""
WIDE = 2.0
"""Ratio of the ends of the interval of the peak from which it is called undetermined."""


@dataclass(frozen=True)
class Curve:
    """One of the two laws; rewards are in the units of the points."""

    form: Form
    origin: float
    """R_0, the reward at d = 0."""
    alpha: float
    beta: float

    def reward(self, distances: Array) -> Array:
        """[...] -> [...]: of d in roots of nats."""
        return columns(distances, self.form) @ np.array([self.origin, self.alpha, self.beta])

    @property
    def peak(self) -> float:
        """The distance at which the reward is largest; infinite for a law that does not turn."""
        return float(peaks(np.array([[self.origin, self.alpha, self.beta]]), self.form)[0])


def columns(distances: Array, form: Form) -> Array:
    """[..., 3]: what R_0, alpha and beta are multiplied by; d ln d is 0 at d = 0."""
    d = np.asarray(distances, dtype=np.float64)
    bent = d * np.log(np.where(d > 0, d, 1.0)) if form == "rl" else d**2
    return np.stack([np.ones_like(d), d, -bent], axis=-1)


def peaks(parameters: Array, form: Form) -> Array:
    """[B, 3] -> [B]: exp(alpha / beta - 1), or alpha / (2 beta); infinite where beta is not positive."""
    _, alpha, beta = parameters.T
    turns = beta > 0
    ratio = np.divide(alpha, beta, out=np.full_like(alpha, np.inf), where=turns)
    with np.errstate(over="ignore"):
        found = np.exp(ratio - 1) if form == "rl" else np.maximum(ratio / 2, 0.0)
    return np.where(turns, found, np.inf)


def fit_curve(distances: Array, rewards: Array, form: Form = "rl") -> Curve:
    """The law of least squares. Raises DataError for points that cannot determine it."""
    d, y = _checked(distances, rewards)
    origin, alpha, beta = np.linalg.lstsq(columns(d, form), y, rcond=None)[0]
    return Curve(form, float(origin), float(alpha), float(beta))


@dataclass(frozen=True)
class OverOptimisation:
    """A law fitted to measured points, with 95 % intervals, and what to know before believing it."""

    curve: Curve
    alpha: Estimate
    beta: Estimate
    peak: Estimate
    """Where the reward is largest, in roots of nats; above is infinity where resamples do not turn."""
    at_peak: float
    """The reward there, less that at d = 0; infinite for a law that does not turn."""
    num_points: int
    num_seeds: int
    warnings: tuple[str, ...]


def measure(
    kl: Sequence[float] | Array,
    rewards: Sequence[float] | Array,
    seeds: Sequence[int] | None = None,
    *,
    form: Form = "rl",
    num: int = 1000,
    draw: int = 0,
) -> OverOptimisation:
    """Fit `form` to iterations, or values of n, of which `kl` is in nats of an answer.

    `seeds` says which run each point is of. Of one run, intervals are percentiles of `num` bootstraps over
    its points. Iterations of one run share its luck, so of several the runs are what counts: intervals are
    those of a jackknife over them with Student's t, since of four or five runs bootstraps draw too few.
    Raises DataError for points that cannot determine a law.
    """
    nats = np.asarray(kl, dtype=np.float64)
    d, y = _checked(np.sqrt(np.maximum(nats, 0.0)), np.asarray(rewards, dtype=np.float64))
    runs = np.zeros(len(d), dtype=np.intp) if seeds is None else np.asarray(seeds)
    names = np.unique(runs)
    curve = fit_curve(d, y, form)
    if len(names) == 1:
        random = np.random.default_rng(draw)
        counts = random.multinomial(len(d), np.full(len(d), 1 / len(d)), size=num).astype(np.float64)
        thetas = _fits(d, y, counts, form)
        columns_B = (thetas[:, 1], thetas[:, 2], peaks(thetas, form))
        values = (curve.alpha, curve.beta, curve.peak)
        alpha, beta, peak = (
            _percentiles(value, values_B, len(d)) for value, values_B in zip(values, columns_B, strict=True)
        )
    else:
        thetas = _fits(d, y, (runs != names[:, None]).astype(np.float64), form)
        alpha, beta = _jackknife(curve.alpha, thetas[:, 1]), _jackknife(curve.beta, thetas[:, 2])
        peak = _jackknifed_peak(curve.peak, peaks(thetas, form))
    turns = math.isfinite(curve.peak)
    at_peak = float(curve.reward(np.array(curve.peak))) - curve.origin if turns else math.inf
    told = tuple(_warnings(nats, d, peak, len(names)))
    return OverOptimisation(curve, alpha, beta, peak, at_peak, len(d), len(names), told)


def _checked(distances: Array, rewards: Array) -> tuple[Array, Array]:
    d, y = np.asarray(distances, dtype=np.float64), np.asarray(rewards, dtype=np.float64)
    for name, values in (("divergence", d), ("reward", y)):
        if bad := int((~np.isfinite(values)).sum()):
            raise DataError(
                f"the {name} is no number in {bad} of {len(values)} points", "leave these points out"
            )
    if len(np.unique(d)) <= NUM_PARAMETERS:
        raise DataError(
            f"{len(d)} points at {len(np.unique(d))} distances cannot determine the {NUM_PARAMETERS} "
            "parameters of a law of over-optimisation",
            f"give points at {NUM_PARAMETERS + 1} distances or more, better some thirty",
        )
    return d, y


def _fits(d: Array, y: Array, counts: Array, form: Form) -> Array:
    """[B, 3]: fits in which each point counts as often as `counts` [B, n] says."""
    design = columns(d, form)
    # Of like size, for a resample with hardly any distance between its points.
    scale = np.sqrt((design**2).mean(axis=0))
    design = design / scale
    squares = np.einsum("bn,np,nq->bpq", counts, design, design)
    products = np.einsum("bn,np,n->bp", counts, design, y)
    found: Array = np.einsum("bpq,bq->bp", np.linalg.pinv(squares, hermitian=True), products)
    return found / scale


def _percentiles(value: float, values_B: Array, num_points: int) -> Estimate:
    """Expanded ones (Hesterberg 2015, arXiv:1411.5279): as far out as Student's t is beyond the normal."""
    free = num_points - NUM_PARAMETERS
    tail = NormalDist().cdf(-math.sqrt(num_points / free) * t_quantile(0.975, free))
    # Some may be infinite: no mean is taken of two.
    low, high = np.quantile(values_B, (tail, 1 - tail), method="inverted_cdf")
    return Estimate(value, float(low), float(high))


def _jackknife(value: float, without_S: Array) -> Estimate:
    """From the values without each run in turn (Efron and Stein 1981), with Student's t."""
    num = len(without_S)
    error = math.sqrt((num - 1) / num * float(((without_S - without_S.mean()) ** 2).sum()))
    half = t_quantile(0.975, num - 1) * error
    return Estimate(value, value - half, value + half)


def _jackknifed_peak(value: float, without_S: Array) -> Estimate:
    """Of its logarithm, since alpha / beta is what varies evenly."""
    with np.errstate(divide="ignore"):
        logs = np.log(np.array([value, *without_S]))
    if not np.isfinite(logs).all():
        return Estimate(value, 0.0, math.inf)
    found = _jackknife(float(logs[0]), logs[1:])
    return Estimate(value, *(math.exp(min(end, 700.0)) for end in (found.low, found.high)))


def _warnings(nats: Array, d: Array, peak: Estimate, num_seeds: int) -> list[str]:
    """What a reader should know, one sentence each."""
    told, far = [], float(d.max())
    if len(d) < FEW_POINTS:
        told.append(f"{len(d)} points are few for a law with {NUM_PARAMETERS} parameters")
    if num_seeds == 1:
        told.append("the points are of one run: the intervals say nothing of how another seed would go")
    if num_negative := int((nats < 0).sum()):
        told.append(f"the divergence was estimated below 0 in {num_negative} point(s), which count as 0")
    if far < NEAR:
        told.append(
            f"the policy went no further than d = {far:.2g} from the reference: too near for it to show"
        )
    if not math.isfinite(peak.value):
        told.append("the fitted law does not turn: these points show no over-optimisation")
    elif peak.value > far:
        told.append(
            f"the fitted peak, at d = {peak.value:.3g}, lies beyond the points, which end at d = {far:.3g}: "
            "it is a guess"
        )
    if math.isfinite(peak.value) and not (peak.low > 0 and peak.high / peak.low <= WIDE):
        end = f"{peak.high:.3g}" if math.isfinite(peak.high) else "beyond any distance"
        told.append(
            f"where the reward peaks is not determined: the 95 % interval is d = {peak.low:.3g} to {end}"
        )
    return told
