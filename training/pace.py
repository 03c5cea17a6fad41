"""Slow ranks: all others wait for the slowest, and what it lacks looks like a slow network.

Within a step ranks wait for each other, so how long a step took says nothing of one rank. What is measured is
what each does alone: the time from one meeting of all ranks to its next micro-batch (data, optimizer,
records), and a product of matrices that takes every device alike.
"""

import time
from collections.abc import Callable
from statistics import mean, median

import torch

from training.engines import Engine

LATE_SHARE = 0.1
"""Of a step: how much later than the others a rank may be ready."""
SLOW_FACTOR = 1.25
"""Of the others' time for the same product: what a device may take."""
NUM_WINDOWS = 3
"""In a row, before a rank is named."""
PRODUCTS = 10
"""In a window."""

Tell = Callable[..., None]


class Pace:
    """This rank's pace, compared with the others' every so many steps; 0 for never."""

    def __init__(self, every: int, engine: Engine, tell: Tell) -> None:
        self.every = every if engine.group.num_ranks > 1 else 0
        self.engine, self.tell = engine, tell
        device = engine.group.device
        size = 2048 if device.type == "cuda" else 192
        self._matrix = torch.ones(size, size, device=device) if self.every else None
        self._met: float | None = None
        self._host_s: list[float] = []
        self._product_s: list[float] = []
        self._step_s: list[float] = []
        self._slow: dict[tuple[int, str], int] = {}

    def ready(self) -> None:
        """This rank has all that its micro-batches need."""
        if self.every and self._met is not None:
            self._host_s.append(time.perf_counter() - self._met)

    def met(self, step: int) -> None:
        """All ranks have heard each other in `step`, and none has to wait for another yet."""
        if not self.every:
            return
        if step % max(1, self.every // PRODUCTS) == 0:
            self._product_s.append(self._time_product())
        self._met = time.perf_counter()

    def stepped(self, step: int, step_s: float) -> None:
        """Every so many steps, compare: an event for each rank that was slow in several windows in a row."""
        if not self.every:
            return
        self._step_s.append(step_s)
        if step % self.every == 0 and self._host_s and self._product_s:
            # Means, since one pause of a second in fifty steps keeps the others waiting as long.
            paces = self._gathered([mean(self._host_s), mean(self._product_s)])
            self._judge(step, mean(self._step_s), *paces)
            self._host_s, self._product_s, self._step_s = [], [], []

    def _gathered(self, own: list[float]) -> list[list[float]]:
        """Per number: those of all ranks."""
        group = self.engine.group
        flat = [value if rank == group.rank else 0.0 for value in own for rank in range(group.num_ranks)]
        sums = self.engine.sum_over_ranks(flat)
        return [sums[first : first + group.num_ranks] for first in range(0, len(sums), group.num_ranks)]

    def _judge(self, step: int, step_s: float, host_s: list[float], product_s: list[float]) -> None:
        for rank in range(self.engine.group.num_ranks):
            late_s = host_s[rank] - _of_others(host_s, rank)
            self._note(
                step,
                rank,
                "late",
                late_s > LATE_SHARE * step_s,
                f"rank {rank} comes to its micro-batches {late_s:.3g} s after the others, in steps of "
                f"{step_s:.3g} s: look at its host's disk and at what else runs there",
            )
            factor = product_s[rank] / _of_others(product_s, rank)
            self._note(
                step,
                rank,
                "slow",
                factor > SLOW_FACTOR,
                f"rank {rank} takes {factor:.2f} times as long as the others for one product of matrices: "
                "look at its device's temperature and clocks, and at what else runs there",
            )

    def _note(self, step: int, rank: int, what: str, is_slow: bool, message: str) -> None:
        count = self._slow[rank, what] = self._slow.get((rank, what), 0) + 1 if is_slow else 0
        # Once, until it was well again.
        if count == NUM_WINDOWS:
            self.tell("slow_rank", message, step=step, rank=rank)

    def _time_product(self) -> float:
        matrix, on_gpu = self._matrix, self.engine.group.device.type == "cuda"
        assert matrix is not None
        started = time.perf_counter()
        torch.mm(matrix, matrix)
        if on_gpu:
            torch.cuda.synchronize(self.engine.group.device)
        return time.perf_counter() - started


def _of_others(values: list[float], rank: int) -> float:
    return median(value for other, value in enumerate(values) if other != rank)
