"""One rank's half of a run: everything that the loop needs, put together and restored."""

import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from data.batches import Batch, WindowStream
from data.shards import Dataset
from data.tokenizers import load_tokenizer
from models.generation.sampler import SamplingOptions, choose
from models.initialization import initial_values
from models.sizes import flops_per_token
from models.transformer import Transformer
from seedbed.errors import CheckpointError, SeedbedError, TrainingError
from seedbed.randomness import seed64, uniform_of
from training.batch_layout import BatchLayout, batch_layout
from training.checkpoint import layout as steps
from training.checkpoint.reader import Checkpoint
from training.checkpoint.writer import Saver, library_versions
from training.config import Config
from training.devices import memory_bytes, peak_flops
from training.engines import ENGINES, Engine, Group
from training.objectives import TensorBatch
from training.objectives.causal_lm import CausalLM
from training.processes import StopFlag
from training.recipes import to_toml
from training.recorder import Recorder
from training.run_directory import RunDirectory
from training.schedules import learning_rate


@dataclass
class TrainState:
    """All that a resume needs beside tensors."""

    step: int = 0
    position: int = 0
    """Samples consumed: the data of the next step begins here."""
    best_loss: float | None = None
    best_step: int | None = None
    validated: float | None = field(default=None, compare=False)
    """Validation loss of the current step, if it was measured."""


class Trainer:
    """Model, data, saver and recorder of one rank."""

    def __init__(self, run: RunDirectory, group: Group, attempt: int, stop: StopFlag) -> None:
        self.run, self.group, self.stop = run, group, stop
        self.config: Config = run.config()
        self.recorder = Recorder(run, self.config, group.rank, attempt)
        self.recorder.beat(0, "starting")
        self.objective = CausalLM()
        self.layout: BatchLayout = batch_layout(self.config)
        dataset = Dataset.open(Path(self.config.data.path))
        seed, context = self.config.run.seed, self.config.model.context
        self.train_data = WindowStream(dataset.split("train"), context, seed)
        self.holdout = dataset.split("holdout")
        self.holdout_data = WindowStream(self.holdout, context, seed, shuffle=False)
        self.dataset = dataset
        self.baseline_bytes = memory_bytes(group.device)
        self.engine: Engine = ENGINES[self.config.engine.name].prepare(
            lambda: Transformer(self.config.model),
            lambda name, start, stop_: initial_values(name, start, stop_, self.config.model, seed),
            self.config,
            group,
        )
        peak, self.peak_source = peak_flops(group.device, self.config.engine.precision)
        total_peak = self.engine.sum_over_ranks([peak or math.nan])[0]
        self.peak_flops = total_peak if math.isfinite(total_peak) else None
        self.saver = Saver(
            run.path,
            group.rank,
            group.num_ranks,
            self._agree_on_nonce(),
            {
                "config.toml": to_toml(self.config).encode(),
                "tokenizer.json": (dataset.path / "tokenizer.json").read_bytes(),
            },
            self.recorder.saved,
        )

    def _agree_on_nonce(self) -> str:
        """A name for this attempt's temporary files, which every rank must be able to see."""
        path = self.run.path / "nonce"
        own = float(time.time_ns() % 2**50) if self.group.rank == 0 else 0.0
        nonce = f"{int(self.engine.sum_over_ranks([own])[0]):x}"
        if self.group.rank == 0:
            path.write_text(nonce, encoding="utf-8")
        self.engine.sum_over_ranks([0.0])
        sees = path.is_file() and path.read_text(encoding="utf-8") == nonce
        blind = self.engine.sum_over_ranks(
            [float(not sees and r == self.group.rank) for r in range(self.group.num_ranks)]
        )
        if any(blind):
            ranks = ", ".join(str(rank) for rank, value in enumerate(blind) if value)
            raise SeedbedError(
                f"rank(s) {ranks} do not see the run directory {self.run.path} that rank 0 writes",
                "put the run directory on storage that all hosts share",
            )
        return nonce

    def restore(self) -> TrainState:
        """Load the newest sound checkpoint, alike on all ranks; damaged ones are put aside."""
        while (step := self._newest_step()) is not None:
            path = steps.step_dir(self.run.path, step)
            checkpoint, problem = self._try_load(path)
            if checkpoint is not None:
                trainer = checkpoint.manifest["trainer"]
                state = TrainState(step, checkpoint.position, trainer["best_loss"], trainer["best_step"])
                self._begin(state, f"resumed from step {step}")
                return state
            if self.group.rank == 0:
                aside = steps.quarantine(path)
                self.recorder.event(
                    "checkpoint_quarantined",
                    f"step {step} is damaged: {problem}",
                    step=step,
                    moved_to=aside.name,
                )
            self.engine.initialize()
            self.engine.sum_over_ranks([0.0])
        state = TrainState()
        init_from = self.run.record().get("init_from")
        if init_from:
            self.engine.load_state(Checkpoint.open(Path(init_from)).read, optimizer=False)
        self._begin(
            state, f"started with weights of {init_from}" if init_from else "started from initial weights"
        )
        return state

    def _newest_step(self) -> int | None:
        """The newest step with a manifest, as rank 0 sees it."""
        found = steps.list_steps(self.run.path) if self.group.rank == 0 else []
        step = int(self.engine.sum_over_ranks([float(found[-1] + 1) if found else 0.0])[0]) - 1
        return step if step >= 0 else None

    def _try_load(self, path: Path) -> tuple[Checkpoint | None, str]:
        """(the checkpoint, "") when every rank could load it, else (None, why not on this rank)."""
        problem, checkpoint = "", None
        try:
            checkpoint = Checkpoint.open(path)
            self.engine.load_state(checkpoint.read)
        except (CheckpointError, OSError) as error:
            problem = str(error)
        failures = self.engine.sum_over_ranks([1.0 if problem else 0.0])[0]
        if failures:
            return None, problem or f"{failures:.0f} other rank(s) could not read their part"
        return checkpoint, ""

    def _begin(self, state: TrainState, message: str) -> None:
        if self.group.rank == 0:
            steps.remove_leftovers(self.run.path)
            steps.abandon_after(self.run.path, state.step, self.recorder.attempt)
        self.recorder.best_step = state.best_step
        self.recorder.begin(
            state.step,
            message,
            num_ranks=self.group.num_ranks,
            peak_flops=self.peak_flops,
            peak_source=self.peak_source,
            baseline_bytes=self.baseline_bytes,
        )
        self.engine.sum_over_ranks([0.0])

    def micro_batch(self, stream: WindowStream, position: int, index: int | None) -> TensorBatch:
        """Micro-batch `index` of the global batch at `position`; None gives one of weight zero."""
        size = self.layout.micro_batch_size
        batch: Batch = stream.batch(position + (index or 0) * size, size)
        device = self.group.device
        weights = torch.from_numpy(batch.weights)
        return TensorBatch(
            torch.from_numpy(batch.tokens).to(device),
            torch.from_numpy(batch.targets).to(device),
            (weights if index is not None else torch.zeros_like(weights)).to(device),
        )

    def train_step(self, state: TrainState) -> bool:
        """One optimizer step, which advances `state`; returns whether some rank was asked to stop."""
        started = time.perf_counter()
        step, rank = state.step + 1, self.group.rank
        data_s = 0.0
        losses, weights = [], []
        for turn in range(self.layout.turns):
            index = self.layout.micro_batch(rank, turn)
            data_started = time.perf_counter()
            batch = self.micro_batch(self.train_data, state.position, index)
            data_s += time.perf_counter() - data_started
            if self.config.model.dropout:
                torch.manual_seed(seed64(self.config.run.seed, "dropout", state.position, index or 0))
            loss, weight = self.engine.micro_batch(self.objective, batch, last=turn == self.layout.turns - 1)
            losses.append(loss)
            weights.append(weight)
        local = [torch.stack(losses).double().sum().item(), torch.stack(weights).double().sum().item()]
        loss_sum, weight_sum, stopping, save_failures = self.engine.sum_over_ranks(
            [*local, float(self.stop.is_set), float(bool(self.saver.own_failure))]
        )
        if save_failures:
            self.saver.abort()
        loss_mean = loss_sum / weight_sum
        lr = learning_rate(step, self.config)
        norm = self.engine.step(lr, weight_sum) if math.isfinite(loss_mean) else math.nan
        if not (math.isfinite(loss_mean) and math.isfinite(norm)):
            raise TrainingError(
                f"step {step}: loss {loss_mean}, gradient norm {norm}; nothing was updated by this step",
                "lower optimizer.lr, lengthen schedule.warmup_steps, or look at the samples from position "
                f"{state.position} to {state.position + self.layout.samples_per_step - 1}",
            )
        state.step, state.position, state.validated = (
            step,
            state.position + self.layout.samples_per_step,
            None,
        )
        self._record_step(state, loss_mean, norm, lr, time.perf_counter() - started, data_s)
        return stopping > 0

    def _record_step(
        self, state: TrainState, loss: float, norm: float, lr: float, step_s: float, data_s: float
    ) -> None:
        self.recorder.beat(state.step, "training")
        tokens_per_s = self.config.batch.tokens_per_step / step_s
        flops = flops_per_token(self.config.model)
        self.recorder.row(
            "train",
            state.step,
            position=state.position,
            tokens=state.step * self.config.batch.tokens_per_step,
            loss=loss,
            grad_norm=norm,
            lr=lr,
            step_s=step_s,
            data_s=data_s,
            tokens_per_s=tokens_per_s,
            mfu_full=tokens_per_s * flops.full / self.peak_flops if self.peak_flops else None,
            mfu_causal=tokens_per_s * flops.causal / self.peak_flops if self.peak_flops else None,
            memory_bytes=memory_bytes(self.group.device),
            goodput=self.recorder.goodput(step_s),
            epoch=state.position / self.train_data.num_windows,
        )

    def validate(self, state: TrainState) -> None:
        """Loss on fixed held-out windows, and a continuation of the prompt."""
        started = time.perf_counter()
        self.recorder.beat(state.step, "evaluating")
        size = self.layout.micro_batch_size
        num_micro = max(1, min(self.config.eval.num_samples, self.holdout_data.num_windows) // size)
        totals = [0.0, 0.0]
        for turn in range(-(-num_micro // self.group.num_ranks)):
            index = turn * self.group.num_ranks + self.group.rank
            batch = self.micro_batch(self.holdout_data, 0, index if index < num_micro else None)
            loss, weight = self.engine.evaluate(self.objective, batch)
            totals[0] += loss.item()
            totals[1] += weight.item()
        loss_sum, weight_sum = self.engine.sum_over_ranks(totals)
        state.validated = loss_sum / weight_sum
        # Tokens to bytes by the held-out split as a whole, each document's end mark included.
        bits_per_byte = state.validated / math.log(2) * self.holdout.num_tokens / self.holdout.utf8_bytes
        self.recorder.row(
            "eval",
            state.step,
            tokens=state.step * self.config.batch.tokens_per_step,
            val_loss=state.validated,
            val_bits_per_byte=bits_per_byte,
            eval_s=time.perf_counter() - started,
        )
        if self.config.eval.prompt:
            self._continue_prompt(state.step)

    def _continue_prompt(self, step: int) -> None:
        tokenizer = load_tokenizer(self.dataset.path / "tokenizer.json")
        prompt = tokenizer.encode(self.config.eval.prompt)[-self.config.model.context // 2 :]
        tokens, options = list(prompt), SamplingOptions(temperature=0.8, top_p=0.95)
        room = self.config.model.context - len(tokens)
        for count in range(min(room, self.config.eval.sample_tokens)):
            logits = self.engine.logits(torch.tensor([tokens], device=self.group.device))
            tokens.append(choose(logits[0, -1].float(), options, uniform_of(0, "sample", count)))
        self.recorder.sample(step, self.config.eval.prompt, tokenizer.decode(tokens[len(prompt) :]))

    def save(self, state: TrainState) -> None:
        """Start saving this step; blocks only while tensors are copied."""
        self.recorder.beat(state.step, "saving")
        self._settle_save()
        if state.validated is not None and (state.best_loss is None or state.validated < state.best_loss):
            state.best_loss, state.best_step = state.validated, state.step
        self.recorder.best_step = state.best_step
        record = self.run.record()
        self.saver.save(
            self.engine.state(),
            {
                "step": state.step,
                "position": state.position,
                "attempt": self.recorder.attempt,
                "world": {"engine": self.config.engine.name, "num_ranks": self.group.num_ranks},
                "config_hash": record.get("config_hash"),
                "identity_hash": record.get("identity_hash"),
                "dataset_digest": self.dataset.digest,
                "tokenizer_fingerprint": self.dataset.tokenizer_fingerprint,
                "library_versions": library_versions(),
                "trainer": {"best_loss": state.best_loss, "best_step": state.best_step},
            },
        )

    def _settle_save(self) -> None:
        """Agree on how the save under way ended, so that rank 0 waits for no part that will not come."""
        self.saver.wait_written()
        if self.engine.sum_over_ranks([float(bool(self.saver.own_failure))])[0]:
            self.saver.abort()
        self.saver.wait()

    def finish(self, state: TrainState, phase: str) -> None:
        """Wait for the last save, on all ranks."""
        self._settle_save()
        self.engine.sum_over_ranks([0.0])
        self.recorder.beat(state.step, phase)
