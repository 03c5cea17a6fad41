"""One rank's half of a run: everything that the loop needs, put together and restored."""

import math
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.profiler import record_function

from data.loader import Direct, Prefetcher
from data.order_hash import as_floats, from_floats, show_digest
from models.families import build, flops_per_token, initial_values
from seedbed.errors import ConfigError, TrainingError
from training import early_stopping, products
from training.asked_tasks import asked_tasks
from training.batch_layout import BatchLayout, batch_layout
from training.checkpoint.remote_copy import RemoteCopy
from training.checkpoint.writer import Saver, SaveResult, library_versions
from training.config import Config
from training.corruption import compute_twice
from training.datasets import (
    digest,
    epochs,
    holdout_stream,
    micro_batches,
    open_datasets,
    training_stream,
)
from training.devices import device_rates, memory_bytes, packages_of
from training.engines import ENGINES, Engine, Group
from training.engines.base import Shard
from training.guards import Guards, Verdict, describe
from training.objectives import as_numbers, seed_dropout, with_step_weights
from training.pace import Pace
from training.processes import StopFlag
from training.recipes import to_toml
from training.recorder import Recorder
from training.rl.driver import Reinforcement
from training.rl.settings import ALGORITHMS
from training.rollback import roll_back
from training.run_directory import RunDirectory
from training.save_interval import SaveInterval
from training.schedules import learning_rate
from training.shared_storage import agree_on_nonce
from training.state import TrainState
from training.tasks import each_tensor, make_task


class Trainer:
    """Model, data, saver and recorder of one rank."""

    def __init__(self, run: RunDirectory, group: Group, attempt: int, stop: StopFlag) -> None:
        self.run, self.group, self.stop = run, group, stop
        self.config: Config = run.config()
        self.recorder = Recorder(run, self.config, group.rank, attempt)
        self.recorder.beat(0, "starting")
        self.layout: BatchLayout = batch_layout(self.config)
        self.datasets = open_datasets(self.config.data)
        self.tokenizer = next(iter(self.datasets.values())).tokenizer()
        self.task = make_task(self.config, self.datasets)
        self.objective = self.task.objective(group.device)
        self.train_data = training_stream(self.task, self.datasets, self.config)
        self.holdout_data, _ = holdout_stream(self.task, self.datasets, self.config)
        if self.holdout_data is None and (self.config.eval.patience or self.config.eval.restore_best):
            raise ConfigError(
                "eval.patience and eval.restore_best need held-out data, and the dataset has none",
                "build it with data.holdout_fraction above 0, or leave them out",
            )
        is_rl = self.config.objective.name in ALGORITHMS
        following = partial(int.__add__, self.layout.samples_per_step)
        self.batches = Direct(self._load) if is_rl else Prefetcher(self._load, following)
        self.interval = SaveInterval(self.config.checkpoint)
        self.baseline_bytes = memory_bytes(group.device)
        self.engine: Engine = ENGINES[self.config.engine.name].prepare(
            lambda: build(self.config.model),
            lambda name, start, stop_: initial_values(
                name, start, stop_, self.config.model, self.config.run.seed
            ),
            self.config,
            group,
        )
        self.rl = Reinforcement(self) if is_rl else None
        self.tasks = asked_tasks(self)
        self.pace = Pace(self.config.guards.pace_every, self.engine, self.recorder.event)
        self._told_eager = False
        rates = device_rates(group.device, self.config.engine.precision)
        self.peak_source = rates.source
        total_peak, self.matmul_flops = self.engine.sum_over_ranks([rates.peak or math.nan, rates.matmul])
        self.peak_flops = total_peak if math.isfinite(total_peak) else None
        self.saver = Saver(
            run.path,
            group.rank,
            group.num_ranks,
            agree_on_nonce(run, self.engine),
            {
                "config.toml": to_toml(self.config).encode(),
                self.tokenizer.file_name: self.tokenizer.to_bytes(),
                **self.task.attachments(),
            },
            self._saved,
            self.rl.apart if self.rl else None,
        )
        copy_to = self.config.checkpoint.copy_to if group.rank == 0 else ""
        self.copy = RemoteCopy(run.path, copy_to, self.recorder.event) if copy_to else None

    def _saved(self, result: SaveResult) -> None:
        """Called on rank 0, from the writing thread, when a save has ended."""
        self.recorder.saved(result)
        if self.copy and not result.error:
            self.copy.push(result.step)

    def prepared(self, batch: Any) -> Any:
        """A batch as tensors on this rank's device."""
        return self.on_device(self._tensors(batch))

    def _tensors(self, batch: Any) -> Any:
        """In memory that a GPU can fetch from while it computes."""
        tensors = self.task.tensors(batch)
        return each_tensor(tensors, torch.Tensor.pin_memory) if self.group.device.type == "cuda" else tensors

    def on_device(self, batch: Any) -> Any:
        """The batch on this rank's device; from pinned memory without waiting for the copy."""
        return each_tensor(batch, lambda value: value.to(self.group.device, non_blocking=True))

    def _load(self, position: int) -> tuple[list[Any], int]:
        """This rank's micro-batches of the step from `position`, and its part of the step's hash."""
        batches, digest = micro_batches(self.train_data, self.layout, self.group.rank, position)
        return [self._tensors(batch) for batch in batches], digest

    def tokens(self, state: TrainState) -> int:
        """Tokens that the run has learnt from."""
        return state.num_samples * self.config.model.context

    def world(self) -> dict[str, Any]:
        """What bits depend on beside the identity: recorded with every checkpoint, compared on resume."""
        return {
            "engine": self.config.engine.name,
            "num_ranks": self.group.num_ranks,
            **({"critic_ranks": self.config.rl.critic_workers} if self.config.rl.critic_workers else {}),
            "threads_per_rank": torch.get_num_threads(),
            "device": self.group.device.type,
            "kernels": f"{self.engine.compiled or 'eager'}{products.named(self.group.device)}",
            "offload": self.config.engine.offload,
            "library_versions": library_versions(*packages_of(self.config)),
        }

    @record_function("seedbed.step")
    def train_step(self, state: TrainState) -> bool:
        """One optimizer step, which advances `state`; returns whether some rank was asked to stop."""
        if self.rl:
            self.rl.before(state)
        started = time.perf_counter()
        step, beside_save = state.step + 1, self.saver.is_busy
        with record_function("seedbed.data"):
            batches, digest = self.batches.get(state.position)
        data_s = time.perf_counter() - started
        watched = self.config.tracking.layer_norms and step % self.config.tracking.layer_norms == 0
        if watched:
            self.engine.watch()
        self.pace.ready()
        losses, weights = self._micro_batches(batches, state.position)
        every = self.config.guards.recompute_every
        if every and step % every == 0:
            compute_twice(self, batches, losses, state)
        with record_function("seedbed.ranks"):
            own = [
                float(self.stop.is_set),
                float(bool(self.saver.own_failure)),
                float(bool(self.engine.compiled and self.engine.compiled.failure)),
                *as_floats(digest),
                # Numbers are fetched once the device has computed them: a wait like that for other ranks.
                *as_numbers(losses),
                *as_numbers(weights),
            ]
            stopping, save_failures, not_compiled, *sums = self.engine.sum_over_ranks(own)
        self.pace.met(step)
        num, digests = self.layout.num_micro_batches, sums[: -2 * self.layout.num_micro_batches]
        # In one order, whoever computed them.
        loss_sum, weight_sum = sum(sums[-2 * num : -num]), sum(sums[-num:])
        if save_failures:
            self.saver.abort()
        if not_compiled:
            self._run_eagerly(int(not_compiled), step)
        loss_mean = loss_sum / weight_sum if weight_sum else math.nan
        means = [
            total / weight if weight else 0.0
            for total, weight in zip(sums[-2 * num : -num], sums[-num:], strict=True)
        ]
        update, verdict = self._update(state, loss_mean, weight_sum, means)
        state.step, state.position, state.validated = step, self._following(state), None
        state.num_updates += not update.get("skipped")
        if self.rl:
            update |= self.rl.after(state)
        self._record_step(
            state,
            loss=loss_mean if math.isfinite(loss_mean) else None,
            **update,
            step_s=time.perf_counter() - started,
            data_s=data_s,
            data_hash=show_digest(from_floats(digests)),
            beside_save=beside_save,
        )
        if watched and not update.get("skipped"):
            self.recorder.row("layers", state.step, **self.engine.layer_norms)
        if verdict.back_before is not None:
            roll_back(self, state, verdict)
        return stopping > 0

    def _following(self, state: TrainState) -> int:
        """Where the data of the next step begins, once this one is over."""
        return state.after(state.position + self.layout.samples_per_step)

    def _update(
        self, state: TrainState, loss: float, weight: float, losses: list[float]
    ) -> tuple[dict[str, Any], Verdict]:
        """Learn from a step, unless the guards object: (what is recorded of it, what they say).

        `losses` are those of its micro-batches.
        """
        step, guards = state.step + 1, Guards(self.config.guards, state.guards)
        lr, norm = learning_rate(step, self.config) * guards.lr_factor(step), None
        if self.rl and (self.rl.only_critic(state) or not weight):
            # Of some iterations all that a step drew is left out.
            self.engine.skip()
            return {"lr": 0.0, "grad_norm": None, "skipped": True}, Verdict()
        with record_function("seedbed.optimizer"):
            if guards.refuses(loss):
                self.engine.skip()
            else:
                norm = self.engine.step(lr, weight, max_norm=guards.max_norm)
        known = norm is not None and math.isfinite(norm)
        update = {"lr": lr, "grad_norm": norm if known else None}
        if self.engine.loss_scale is not None and norm is not None:
            update |= {"skipped": not known, "loss_scale": self.engine.loss_scale}
            if not known:
                # Overflows are how a loss scale is found.
                return update, Verdict()
        verdict = guards.note(step, state.position, self._following(state), loss, norm)
        if verdict.problem:
            skipped = not known or guards.settings.spikes == "act"
            update["skipped"] = skipped
            self.recorder.event(
                "step_skipped" if skipped else "spike",
                describe(verdict, step, skipped, losses, self._samples(state.position)),
                step=step,
                position=state.position,
                following=self._following(state),
                losses=[value if math.isfinite(value) else None for value in losses],
            )
        return update, verdict

    def _samples(self, position: int) -> list[str]:
        """What the micro-batches of the step from `position` read, as text."""
        size = self.layout.micro_batch_size
        return [
            f"{first} to {first + size - 1}"
            for first in range(position, position + self.layout.samples_per_step, size)
        ]

    def _micro_batches(
        self, batches: list[Any], position: int
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """Forward and backward of this rank's part of a step: (losses, weights), None at those of others."""
        losses: list[Tensor | None] = [None] * self.layout.num_micro_batches
        weights = losses.copy()
        for turn, batch in enumerate(with_step_weights(batches, self.engine.sum_over_ranks)):
            index = self.layout.micro_batch(self.group.rank, turn)
            seed_dropout(self.config.run.seed, position, index)
            loss, weight = self.engine.micro_batch(
                self.objective, self.on_device(batch), last=turn == self.layout.turns - 1
            )
            if index is not None:
                losses[index], weights[index] = loss, weight
        return losses, weights

    def _run_eagerly(self, num_failures: int, step: int) -> None:
        """Say once that blocks are not compiled; where one rank cannot, none does."""
        compiled = self.engine.compiled
        assert compiled is not None
        compiled.failure = compiled.failure or "another rank could not compile them"
        if self._told_eager:
            return
        self._told_eager = True
        if self.config.engine.exact and (compiled.is_mixed or num_failures < self.group.num_ranks):
            raise TrainingError(
                f"step {step}: {num_failures} of {self.group.num_ranks} ranks could not compile all of the "
                f"model's blocks, and exact mode would not be exact ({compiled.failure})",
                "set engine.compile to false, or make all hosts alike",
            )
        message = f"blocks run eagerly, since they cannot be compiled: {compiled.failure}"
        self.recorder.event("not_compiled", message, step=step, ranks=num_failures)

    def _record_step(self, state: TrainState, *, step_s: float, **measured: Any) -> None:
        self.interval.stepped(step_s)
        self.pace.stepped(state.step, step_s)
        self.recorder.beat(state.step, "training", step_s=step_s)
        tokens_per_s = self.config.batch.tokens_per_step / step_s
        flops = flops_per_token(self.config.model)
        self.recorder.row(
            "train",
            state.step,
            position=state.position,
            tokens=self.tokens(state),
            **measured,
            step_s=step_s,
            tokens_per_s=tokens_per_s,
            mfu_full=tokens_per_s * flops.full / self.peak_flops if self.peak_flops else None,
            mfu_causal=tokens_per_s * flops.causal / self.peak_flops if self.peak_flops else None,
            memory_bytes=memory_bytes(self.group.device),
            goodput=self.recorder.goodput(0.0 if measured.get("skipped") else step_s),
            epoch=epochs(self.train_data, state.position),
        )

    def save(self, state: TrainState) -> None:
        """Start saving this step; blocks until the save before it is done and tensors are copied."""
        started = time.perf_counter()
        self.recorder.beat(state.step, "saving")
        self.settle_save()
        best = self.recorder.best
        if state.validated is not None and (best is None or state.validated < best[0]):
            best = (state.validated, state.step)
        record = self.run.record()
        manifest = {
            "step": state.step,
            "position": state.position,
            "attempt": self.recorder.attempt,
            "world": self.world(),
            "config_hash": record.get("config_hash"),
            "identity_hash": record.get("identity_hash"),
            "dataset_digest": digest(self.datasets),
            "tokenizer_fingerprint": self.tokenizer.fingerprint,
            "trainer": {
                "best": best,
                "patience": [state.least, state.num_stale],
                "guards": state.guards.save(),
                "passed_over": state.passed_over,
                "num_updates": state.num_updates,
            },
        }
        blocked_s = self.saver.save(self.shards(state.position), manifest, started)
        # Rank 0's numbers, for all.
        own = [blocked_s, self.interval.step_s] if self.group.rank == 0 else [0.0, 0.0]
        if self.interval.saved(state.step, *self.engine.sum_over_ranks(own)):
            message = (
                f"saving every {self.interval.steps} steps from now on: a save takes {blocked_s:.2f} s, and "
                f"checkpoint.mttf_h is {self.config.checkpoint.mttf_h:g}"
            )
            self.recorder.event("save_interval", message, step=state.step, steps=self.interval.steps)
        self.recorder.beat(state.step, "training")

    def shards(self, position: int) -> Iterator[Shard]:
        """What a run that goes on from there needs of this rank."""
        yield from self.engine.state()
        if self.rl:
            yield from self.rl.state(position)

    def settle_save(self) -> bool:
        """Agree on how the save under way ended, so that rank 0 waits for no part that will not come.

        Returns whether it succeeded; what a failed one left behind is deleted.
        """
        still = self.recorder.still
        self.saver.wait_written(still)
        if self._any_rank(bool(self.saver.own_failure)):
            self.saver.abort()
        self.saver.wait(still)
        # Rank 0 may have failed later than in its own part: when it put the parts together.
        failed = self._any_rank(bool(self.saver.own_failure))
        if failed and self.group.rank == 0:
            self.saver.remove_leftovers()
        return not failed

    def _any_rank(self, flag: bool) -> bool:
        return self.engine.sum_over_ranks([float(flag)])[0] > 0

    def finish(self, state: TrainState, phase: str) -> None:
        """Wait until the last step is on disk, on all ranks; raises TrainingError when it cannot be."""
        self.batches.close()
        self.recorder.beat(state.step, "saving")
        if not self.settle_save():
            self.save(state)
            if not self.settle_save():
                raise TrainingError(
                    f"step {state.step} is trained but could not be saved: "
                    f"{self.saver.own_failure or 'another rank could not write its part'}",
                    f"free some disk space, then: seedbed train --resume {self.run.path}",
                )
        if self.rl:
            self.rl.close()
        if self.copy:
            self.recorder.beat(state.step, "copying")
            self.copy.close(self.recorder.still)
        ends_at = state.step
        if phase == "finished" and self.group.rank == 0:
            ends_at = early_stopping.end(self, state)
        self.recorder.beat(ends_at, phase)
