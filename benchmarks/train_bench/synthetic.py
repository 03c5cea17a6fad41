"""One rank that learns random tokens through an engine, step by step as the trainer does: what is timed.

A few micro-batches, drawn once, come round again and again, so that no step waits for data.
"""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from models.families import build, initial_values
from training.batch_layout import batch_layout
from training.config import Config
from training.engines import ENGINES, Engine, Group
from training.objectives import TensorBatch, as_numbers
from training.objectives.causal_lm import CausalLM
from training.tasks import each_tensor

NUM_BATCHES = 8
LEARNING_RATE = 6e-4


class SyntheticRun:
    """An engine for `config`, and random tokens below `num_tokens` for it."""

    def __init__(self, config: Config, group: Group, num_tokens: int) -> None:
        self.layout, self.group = batch_layout(config), group
        self.tokens_per_step = config.batch.tokens_per_step
        self.objective = CausalLM(num_chunks=config.objective.num_chunks)
        self.engine: Engine = ENGINES[config.engine.name].prepare(
            lambda: build(config.model), Draws(config), config, group
        )
        shape = (self.layout.micro_batch_size, config.model.context + 1)
        random = torch.Generator().manual_seed(0)
        windows = [torch.randint(0, num_tokens, shape, generator=random) for _ in range(NUM_BATCHES)]
        batches = [
            TensorBatch(window[:, :-1].contiguous(), window[:, 1:].contiguous(), torch.ones(shape)[:, 1:])
            for window in windows
        ]
        if group.device.type == "cuda":
            batches = [each_tensor(batch, torch.Tensor.pin_memory) for batch in batches]
        self._batches = batches

    def step(self, number: int) -> tuple[float, float]:
        """One optimizer step: (mean loss, gradient norm)."""
        losses: list[Any] = [None] * self.layout.num_micro_batches
        weights = losses.copy()
        for turn in range(self.layout.turns):
            index = self.layout.micro_batch(self.group.rank, turn)
            batch = self._batches[(number * self.layout.num_micro_batches + (index or 0)) % NUM_BATCHES]
            batch = each_tensor(batch, lambda value: value.to(self.group.device, non_blocking=True))
            if index is None:
                batch = batch._replace(weights=torch.zeros_like(batch.weights))
            last = turn == self.layout.turns - 1
            loss, weight = self.engine.micro_batch(self.objective, batch, last=last)
            if index is not None:
                losses[index], weights[index] = loss, weight
        sums = self.engine.sum_over_ranks([*as_numbers(losses), *as_numbers(weights)])
        loss_sum, weight_sum = sum(sums[: len(losses)]), sum(sums[len(losses) :])
        return loss_sum / weight_sum, self.engine.step(LEARNING_RATE, weight_sum)

    def state_hash(self) -> str:
        """SHA-256 over this rank's weights and moments."""
        digest = hashlib.sha256()
        for shard in self.engine.state():
            digest.update(shard.name.encode())
            digest.update(shard.local.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


class Draws:
    """Initial values as a run's, drawn on all cores and kept, so that a second start costs no time."""

    CHUNK = 1 << 22

    def __init__(self, config: Config) -> None:
        self._config = config
        self._kept: dict[tuple[str, int, int], np.ndarray] = {}

    def __call__(self, name: str, start: int, stop: int) -> np.ndarray:
        """See `training.engines.base.Draw`."""
        key = (name, start, stop)
        if key not in self._kept:
            bounds = [*range(start, stop, self.CHUNK), stop]
            with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
                parts = threads.map(
                    lambda first, end: initial_values(name, first, end, self._config.model, 0),
                    bounds[:-1],
                    bounds[1:],
                )
                self._kept[key] = np.concatenate([np.empty(0, np.float32), *parts])
        return self._kept[key]
