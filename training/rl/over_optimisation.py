"""Whether a reward is over-optimised: the gold that is measured beside it falls while it still rises.

Gao et al. 2023 (arXiv:2210.10760) see it afterwards, as a curve; here it is seen as it happens. At every
iteration the newest n of them are compared with the best window of w before, for many n and w: a scan for a
change whose time and size are not known (Lai 1995, "Sequential changepoint detection in quality control").
What is compared with a bound is

    (mean gold of the window - mean gold of the newest) / their standard error

over all (n, w) for which the reward has risen in between. Standard errors are those of the answers, clustered
by prompt, and larger where gold moves more than they explain, from iteration to iteration or in blocks of
four or eight. The bound is 3 + ln(t) / 2 after t iterations, so that a run of any length may be watched.

By simulation at most 5 % of healthy runs of up to 300 iterations are told of; one is healthy when the
expectation of its gold never falls. That holds where gold varies up to 1.6 times as much as answers say, or
neighbours have a correlation of up to 0.3; where 1.3 times and 0.2 come together it is 6 %.

Without gold two signals are left, which prove nothing: members of an ensemble that disagree twice as much as
at first, and answers half as long again or two thirds as long. Both are rules of thumb, and only told of.

All that is remembered is a table of the iterations, which a checkpoint carries.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

WINDOWS = (4, 8, 16, 32, 64)
"""Iterations of the window before; the least is also what the best step is found by."""
NEWEST = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
BLOCKS = {1: 4.0, 4: 2.0, 8: 1.0}
"""Iterations of a block -> squares of size 1 that it is taken to have shown before any is seen."""
LARGEST_SQUARE = 16.0
FIRST = 8
"""Iterations that signals without gold are compared over."""
DISAGREES, LONGER = 2.0, 1.5


class Iteration(NamedTuple):
    """What one iteration measured; means over its answers."""

    step: int
    """The first that learns from it."""
    reward: float
    gold: float | None
    gold_error: float | None
    """Standard error of gold."""
    kl: float
    """Nats of an answer from the reference."""
    disagreement: float | None
    """Standard deviation over the members of an ensemble."""
    length: float
    """Tokens of an answer."""


COLUMNS = (*Iteration._fields, "told")


class Told(NamedTuple):
    """Something that a run's record is to say."""

    kind: str
    message: str
    numbers: dict[str, float]


class Fall(NamedTuple):
    """The clearest fall of gold: iterations `before` and `after` by number, the ends not among them."""

    score: float
    bound: float
    before: tuple[int, int]
    after: tuple[int, int]


class Watch:
    """Over one run."""

    def __init__(self) -> None:
        self._rows: list[list[float]] = []

    def note(self, seen: Iteration) -> list[Told]:
        """Remember an iteration; what is to be said of it, each kind once in a run."""
        self._rows.append([math.nan if value is None else float(value) for value in seen] + [0.0])
        found = [*self._falling(), *self._doubtful()]
        if found:
            self._rows[-1][-1] = 1.0
        return found

    @property
    def is_over_optimised(self) -> bool:
        """Whether gold was found to fall."""
        return bool(((self._column("told") > 0) & np.isfinite(self._column("gold"))).any())

    @property
    def best_steps(self) -> list[int]:
        """The last two steps from which on gold, over four iterations, was higher than ever before."""
        means = window_means(self._measured("gold"), WINDOWS[0])
        highest = np.maximum.accumulate(means, axis=0)
        ends = np.flatnonzero(np.append(True, means[1:] > highest[:-1])[: len(means)]) + WINDOWS[0] - 1
        return [int(step) for step in self._measured("step")[ends[-2:]]]

    def state(self) -> Array:
        """[T, 8]: what a run that goes on has to know."""
        return np.array(self._rows, dtype=np.float64).reshape(-1, len(COLUMNS))

    def load_state(self, state: Array) -> None:
        self._rows = [[float(value) for value in row] for row in state]

    def _column(self, name: str) -> Array:
        place = COLUMNS.index(name)
        return np.array([row[place] for row in self._rows], dtype=np.float64)

    def _measured(self, name: str) -> Array:
        """Of the iterations that have gold."""
        return self._column(name)[np.isfinite(self._column("gold"))]

    def _falling(self) -> Iterator[Told]:
        if self.is_over_optimised or not math.isfinite(self._rows[-1][COLUMNS.index("gold")]):
            return
        gold, reward = self._measured("gold"), self._measured("reward")
        found = fall(gold, np.nan_to_num(self._measured("gold_error")), reward)
        if found is None or found.score <= found.bound:
            return
        before, after = slice(*found.before), slice(*found.after)
        steps, root = self._measured("step"), np.sqrt(np.maximum(self._measured("kl"), 0))
        numbers = {
            "gold_before": float(gold[before].mean()),
            "gold_after": float(gold[after].mean()),
            "reward_before": float(reward[before].mean()),
            "reward_after": float(reward[after].mean()),
            "root_kl_before": float(root[before].mean()),
            "root_kl_after": float(root[after].mean()),
            "deviations": found.score,
            "bound": found.bound,
            "since": int(steps[before][-1]),
        }
        yield Told(
            "over_optimised",
            f"step {int(steps[-1])}: the reward is over-optimised: since step {numbers['since']} it rose "
            f"from {numbers['reward_before']:.4g} to {numbers['reward_after']:.4g}, and gold fell from "
            f"{numbers['gold_before']:.4g} to {numbers['gold_after']:.4g} ({found.score:.1f} standard "
            f"errors, the bound is {found.bound:.1f}); the root of the divergence went from "
            f"{numbers['root_kl_before']:.2f} to {numbers['root_kl_after']:.2f}",
            numbers,
        )

    def _doubtful(self) -> Iterator[Told]:
        """Signals of runs without gold."""
        if len(self._rows) < 2 * FIRST or np.isfinite(self._column("gold")).any():
            return
        told, reward = self._column("told"), self._column("reward")
        if told.any() or reward[-FIRST:].mean() <= reward[:FIRST].mean():
            return
        for name, what, ratio in (
            ("disagreement", "the reward models disagree", DISAGREES),
            ("length", "answers have become longer:", LONGER),
            ("length", "answers have become shorter:", 1 / LONGER),
        ):
            values = self._column(name)
            first, last = values[:FIRST], values[-FIRST:]
            grown, shrunk = last.min() > first.max(), last.max() < first.min()
            times = last.mean() / first.mean() if first.mean() > 0 else math.nan
            if (ratio > 1 and grown and times > ratio) or (ratio < 1 and shrunk and times < ratio):
                yield Told(
                    "reward_in_doubt",
                    f"step {int(self._rows[-1][0])}: {what} {times:.2f} times as much as in the first "
                    f"{FIRST} iterations, and the reward rose: without rl.gold nobody knows whether it can "
                    "be believed",
                    {f"{name}_first": float(first.mean()), f"{name}_newest": float(last.mean())},
                )


def fall(gold_T: Array, error_T: Array, reward_T: Array) -> Fall | None:
    """The clearest fall up to the newest iteration while the reward rose; None where there is none."""
    num = len(gold_T)
    variance_T = variances(gold_T, error_T)
    if num < WINDOWS[0] + NEWEST[0] or not variance_T.any():
        return None
    best: Fall | None = None
    bound = 3.0 + 0.5 * math.log(num)
    noise = dispersion(gold_T, variance_T)
    counts = np.array([count for count in NEWEST if num - count >= WINDOWS[0]])
    newest, reward, error = (
        np.cumsum(values_T[::-1])[counts - 1] / counts for values_T in (gold_T, reward_T, variance_T)
    )
    for width in WINDOWS:
        # Where a window may begin that ends before the newest do.
        latest = num - counts - width
        fits = latest >= 0
        if not fits.any():
            break
        means = window_means(gold_T, width)
        highest = np.maximum.accumulate(means)
        places = np.maximum.accumulate(np.where(means == highest, np.arange(len(means)), 0))[latest[fits]]
        uncertain = window_means(variance_T, width)[places] / width + (error / counts)[fits]
        scores = (means[places] - newest[fits]) / np.sqrt(noise * uncertain)
        scores[reward[fits] <= window_means(reward_T, width)[places]] = -math.inf
        which = int(np.argmax(scores))
        if math.isfinite(scores[which]) and (best is None or scores[which] > best.score):
            place = int(places[which])
            best = Fall(float(scores[which]), bound, (place, place + width), (num - int(counts[which]), num))
    return best


def variances(gold_T: Array, error_T: Array) -> Array:
    """[T] of gold: half each iteration's own, half the mean so far, since few answers do not know theirs.

    Where answers say nothing of it, it is that of second differences.
    """
    squares = error_T**2
    if not squares.any():
        second = np.diff(gold_T, 2)
        return np.full(len(gold_T), (second**2).mean() / 6 if len(second) else 0.0)
    return np.asarray((squares + np.cumsum(squares) / np.arange(1, len(squares) + 1)) / 2)


def dispersion(gold_T: Array, variance_T: Array) -> float:
    """By how much gold varies more than its variances say, at least 1: of single iterations and of blocks.

    Second differences are blind to a trend, blocks see what neighbours share.
    """
    found = [1.0]
    for width, prior in BLOCKS.items():
        num = len(gold_T) // width
        means, variance = (
            values[: num * width].reshape(num, width).mean(axis=1) for values in (gold_T, variance_T / width)
        )
        if num > 2:
            expected = variance[2:] + 4 * variance[1:-1] + variance[:-2]
            squares = np.diff(means, 2) ** 2 / np.where(expected > 0, expected, np.inf)
            total = prior + np.minimum(squares, LARGEST_SQUARE).sum()
            found.append(float(total / (prior + len(squares))))
    return max(found)


def window_means(values_T: Array, width: int) -> Array:
    """[T - width + 1] means of so many neighbours; none where there are fewer."""
    if len(values_T) < width:
        return np.zeros(0)
    sums = np.concatenate([[0.0], np.cumsum(values_T)])
    return np.asarray((sums[width:] - sums[:-width]) / width)


def clustered_error(values: Sequence[float], clusters: Sequence[int]) -> float | None:
    """Standard error of the mean of answers, of which those to one prompt are alike; None of one prompt.

    That of the ratio of sums over clusters (Cochran 1977, section 6.4).
    """
    y, owner = np.asarray(values, dtype=np.float64), np.asarray(clusters)
    names = np.unique(owner)
    if len(names) < 2:
        return None
    residual = np.array([(y[owner == name] - y.mean()).sum() for name in names])
    return math.sqrt(len(names) / (len(names) - 1) * float(residual @ residual)) / len(y)
