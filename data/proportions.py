"""Which source each position of a mixture takes from: within one sample of the asked shares, everywhere.

Let W_i(p) be the samples that source i should have given after p positions: its share, summed. Sample j of
source i (from 0) may come once W_i passes j, and must have come when W_i reaches j + 1: its window. Taking,
at each position, the sample whose window is open and closes first keeps every source strictly within one
sample of W_i. That a taking without misses exists follows from counting windows: inside any interval
there are no more of them than it has positions, since the W_i add up to p (the windows of Pfair
scheduling: Baruah, Cohen, Plaxton and Varvel 1996, "Proportionate progress"; that earliest deadline
first then finds one: Liu and Layland 1973). It holds for shares that change in stages, too.

Shares are whole numbers, so that W is exact at any position. With shares that sum to D, the choice repeats
after D positions once it has done so for a first time: a few runs of D are played when a mixture is made,
and any position, however far, is then looked up.

Shapes: S sources.
"""

import heapq
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

NEVER = 2**100


@dataclass(frozen=True)
class Stage:
    """Shares that hold from position `start` until the next stage."""

    start: int
    shares: tuple[int, ...]
    """[S] whole numbers, not all 0: source i gives shares[i] of every sum(shares) samples."""


@dataclass(frozen=True)
class _Run:
    """Choices that were played for positions from `start`, and how often they are repeated."""

    start: int
    stop: float
    counts: tuple[int, ...]
    """[S] samples that each source gave before `start`."""
    sources: NDArray[np.int32]
    """[n] the source of each position."""
    ranks: NDArray[np.int32]
    """[n] how many samples this source gave before, in this run."""
    per_run: NDArray[np.int64]
    """[S] samples of each source."""


class Proportions:
    """The choices for `stages`, which begin at 0 and ascend."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        if not stages or stages[0].start != 0:
            raise ValueError("the first stage starts at 0")
        self._target = _Target(stages)
        self._runs: list[_Run] = []
        counts = [0] * len(stages[0].shares)
        for number, stage in enumerate(stages):
            counts = self._play_stage(number, stage, counts)
        self._starts = [run.start for run in self._runs]

    def choose(self, position: int, count: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """[count], [count]: source of each position from `position` on, and which of its samples it takes."""
        sources = np.empty(count, dtype=np.int32)
        indices = np.empty(count, dtype=np.int64)
        done = 0
        while done < count:
            run = self._run_at(position + done)
            taken = int(min(count, run.stop - position)) - done
            offsets = np.arange(taken, dtype=np.int64) + (position + done - run.start)
            turns, places = np.divmod(offsets, len(run.sources))
            chosen = run.sources[places]
            sources[done : done + taken] = chosen
            before = np.array(run.counts, dtype=np.int64)
            indices[done : done + taken] = before[chosen] + turns * run.per_run[chosen] + run.ranks[places]
            done += taken
        return sources, indices

    def counts(self, position: int) -> list[int]:
        """[S] samples that each source gave before `position`."""
        run = self._run_at(position)
        turns, place = divmod(position - run.start, len(run.sources))
        partial = np.bincount(run.sources[:place], minlength=len(run.counts)).tolist()
        return [
            before + turns * int(each) + part
            for before, each, part in zip(run.counts, run.per_run, partial, strict=True)
        ]

    def target(self, position: int) -> list[Fraction]:
        """[S] samples that each source should have given before `position`: W."""
        return [self._target.at(source, position) for source in range(len(self._runs[0].counts))]

    def _run_at(self, position: int) -> _Run:
        if position < 0:
            raise ValueError(f"position must not be negative: {position}")
        return self._runs[bisect_right(self._starts, position) - 1]

    def _play_stage(self, number: int, stage: Stage, counts: list[int]) -> list[int]:
        """Add the runs of one stage to those before; the counts at its end."""
        start, length, stop = stage.start, sum(stage.shares), self._target.stop(number)
        while start < stop:
            # Windows are no longer than `length`: so far from the next stage, they do not depend on it.
            far = start + 3 * length + 2 <= stop
            run = self._play(number, start, start + length if far else int(stop), counts)
            repeats = 1
            if far and run.per_run.tolist() == list(stage.shares):
                if stop == math.inf:
                    self._runs.append(replace(run, stop=math.inf))
                    return []
                repeats = (int(stop) - length - 2 - start) // length
            start += repeats * len(run.sources)
            self._runs.append(replace(run, stop=start))
            counts = [before + repeats * int(each) for before, each in zip(counts, run.per_run, strict=True)]
        return counts

    def _play(self, stage: int, start: int, stop: int, counts: Sequence[int]) -> _Run:
        """Choose for positions start .. stop - 1 of one stage, after the sources gave `counts`."""
        given = list(counts)
        target = self._target
        closed = [(target.opening(stage, source, given[source]), source) for source in range(len(given))]
        heapq.heapify(closed)
        opened: list[tuple[int, int]] = []
        sources = np.empty(stop - start, dtype=np.int32)
        ranks = np.empty(stop - start, dtype=np.int32)
        for position in range(start, stop):
            while closed and closed[0][0] <= position:
                source = heapq.heappop(closed)[1]
                heapq.heappush(opened, (target.closing(stage, source, given[source]), source))
            deadline, source = heapq.heappop(opened)
            assert deadline > position, "a window was missed"
            sources[position - start], ranks[position - start] = source, given[source] - counts[source]
            given[source] += 1
            heapq.heappush(closed, (target.opening(stage, source, given[source]), source))
        per_run = np.array(given, dtype=np.int64) - np.array(counts, dtype=np.int64)
        return _Run(start, stop, tuple(counts), sources, ranks, per_run)


class _Target:
    """W_i, piecewise linear and exact: all in units of 1 / `unit` samples."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._starts = [stage.start for stage in stages]
        self._stops: list[float] = [*self._starts[1:], math.inf]
        self._unit = math.lcm(*(sum(stage.shares) for stage in stages))
        self._slopes = [
            [share * (self._unit // sum(stage.shares)) for share in stage.shares] for stage in stages
        ]
        self._bases = [[0] * len(stages[0].shares)]
        for slopes, start, stop in zip(self._slopes, self._starts, self._starts[1:], strict=False):
            self._bases.append(
                [base + slope * (stop - start) for base, slope in zip(self._bases[-1], slopes, strict=True)]
            )

    def stop(self, stage: int) -> float:
        """Where a stage ends: an int, or infinity."""
        return self._stops[stage]

    def at(self, source: int, position: int) -> Fraction:
        """W of `source` at `position`."""
        stage = bisect_right(self._starts, position) - 1
        travelled = self._slopes[stage][source] * (position - self._starts[stage])
        return Fraction(self._bases[stage][source] + travelled, self._unit)

    def opening(self, stage: int, source: int, sample: int) -> int:
        """The first position, or one before it, that may take `sample`: W exceeds `sample` after it."""
        return self._reached(stage, source, sample * self._unit + 1) - 1

    def closing(self, stage: int, source: int, sample: int) -> int:
        """The position before which `sample` must have been taken: W has reached `sample` + 1."""
        return self._reached(stage, source, (sample + 1) * self._unit)

    def _reached(self, stage: int, source: int, level: int) -> int:
        """The first position, seen from `stage`, at which W is at least `level`; NEVER if there is none."""
        for number in range(stage, len(self._starts)):
            slope = self._slopes[number][source]
            if not slope:
                if level <= self._bases[number][source]:
                    return self._starts[number]
                continue
            position = self._starts[number] + max(0, -((self._bases[number][source] - level) // slope))
            if position <= self._stops[number]:
                return position
        return NEVER
