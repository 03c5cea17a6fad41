"""Answers ahead of time: those of the next iterations are written while this one is learned from.

They are older than the weights that learn from them by `rl.staleness` iterations, always the same number, and
not by as many as a clock would have it: so a run is the same on any machines, and may be resumed. What they
were sampled with is behind what is updated, so a token is weighed by how much likelier it has become before
the first update, up to a limit: truncated importance sampling, and a ratio that is clipped around the newer
policy (Hilton, Cobbe and Schulman 2022, "Batch size-invariance for policy optimization", who call that
decoupled).
"""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict

import numpy as np
import torch

from models.generation import Completion, Request
from seedbed.files import canonical_json
from training.checkpoint.reader import Checkpoint
from training.engines.base import Shard
from training.rl.rollouts import Rollout, rollout_of
from training.rl.workers import Policy

NAME = "rl/ahead"


class Ahead:
    """The answers of iterations to come, as they are written or since they were; for one rank of all."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rollouts")
        self._done: dict[int, list[Rollout]] = {}
        self._writing: dict[
            int, tuple[Future[dict[int, list[Completion]]], Callable[..., list[Rollout]]]
        ] = {}

    def begin(
        self,
        iteration: int,
        requests: Sequence[Request],
        finished: Callable[[list[Completion]], list[Rollout]],
    ) -> None:
        """Have requests answered with the generator's weights of now, unless that was begun before."""
        if iteration not in self._done and iteration not in self._writing:
            future = self._thread.submit(self.policy.own_answers, requests)
            self._writing[iteration] = future, finished

    def settle(self) -> None:
        """Wait until all that was begun is written, on all ranks: they have to call it together."""
        for iteration, (future, finished) in self._writing.items():
            self._done[iteration] = finished(self.policy.all_answers(future.result()))
        self._writing = {}

    def take(self, iteration: int) -> list[Rollout] | None:
        """Its answers, once; those of earlier iterations are forgotten. None where none are."""
        self.settle()
        found = self._done.pop(iteration, None)
        self._done = {number: rollouts for number, rollouts in self._done.items() if number > iteration}
        return found

    def state(self) -> Iterator[Shard]:
        """On rank 0, after `settle`."""
        if self._done:
            rows = {number: [asdict(one) for one in rollouts] for number, rollouts in self._done.items()}
            values = torch.from_numpy(np.frombuffer(canonical_json(rows), dtype=np.uint8).copy())
            yield Shard(NAME, values, tuple(values.shape), (0,))

    def load_state(self, checkpoint: Checkpoint) -> None:
        self.forget()
        if checkpoint.names(NAME):
            rows = json.loads(checkpoint.read(NAME).numpy().tobytes())
            self._done = {int(number): [rollout_of(row) for row in rows[number]] for number in rows}

    def forget(self) -> None:
        """All of it."""
        for future, _ in self._writing.values():
            future.cancel()
        self._writing, self._done = {}, {}

    def close(self) -> None:
        self.forget()
        self._thread.shutdown(wait=True, cancel_futures=True)
