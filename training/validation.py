"""Validation while training: the loss on held-out windows, and a continuation to look at.

The samples are drawn once, by seed, from the whole held-out split, so that a few dozen of them speak
for all of its files; every validation of a run uses the same ones.
"""

import math
import time
from typing import TYPE_CHECKING, Any

import torch

from data.batches import Stream, without_weight
from models.generation.sampler import SamplingOptions, choose
from seedbed.randomness import uniform_of
from training.state import TrainState

if TYPE_CHECKING:
    from training.trainer import Trainer

CONTINUATION = SamplingOptions(temperature=0.8, top_p=0.95)


def validate(trainer: "Trainer", state: TrainState) -> None:
    """Record the scores of the validation windows, bits per byte among them, and of `eval.tasks`; continue
    the prompt, if any."""
    trainer.recorder.beat(state.step, "evaluating")
    if trainer.tasks:
        started, is_first = time.perf_counter(), trainer.group.rank == 0
        write_to, still = trainer.run.path if is_first else None, trainer.recorder.still
        found = trainer.tasks.scores(state.step, write_to, still)
        trainer.recorder.row("tasks", state.step, **found, tasks_s=time.perf_counter() - started)
    if (held_out := trainer.holdout_data) is not None:
        _validate(trainer, state, held_out)
    trainer.recorder.beat(state.step, "training")


def _validate(trainer: "Trainer", state: TrainState, held_out: Stream[Any]) -> None:
    started = time.perf_counter()
    sums, num_bytes = _totals(trainer, held_out)
    means = {name: total / weight for name, (total, weight) in sums.items() if weight}
    state.validated = _loss(trainer, sums)
    averaged = {}
    if trainer.config.optimizer.ema_decay:
        with trainer.engine.averaged():
            ema_sums, _ = _totals(trainer, held_out)
        averaged["val_ema_loss"] = _loss(trainer, ema_sums)
    bits_per_byte = None
    # Of a tokenizer that loses text, the bytes of its tokens are not those of the text.
    if num_bytes and not trainer.tokenizer.lossy_because:
        bits_per_byte = sums["loss"][0] / math.log(2) / num_bytes
    trainer.recorder.row(
        "eval",
        state.step,
        tokens=trainer.tokens(state),
        val_loss=state.validated,
        val_bits_per_byte=bits_per_byte,
        **{f"val_{name}": mean for name, mean in means.items() if name != "loss"},
        **averaged,
        eval_s=time.perf_counter() - started,
    )
    if trainer.config.eval.prompt:
        _continue_prompt(trainer, state.step)


def _loss(trainer: "Trainer", sums: dict[str, tuple[float, float]]) -> float:
    return sum(
        sums[name][0] / sums[name][1] for name in trainer.objective.losses if sums.get(name, (0, 0))[1]
    )


def _totals(trainer: "Trainer", held_out: Stream[Any]) -> tuple[dict[str, tuple[float, float]], float]:
    """(sum and weight of each score, bytes that were scored) over all validation windows and ranks."""
    size, group = trainer.layout.micro_batch_size, trainer.group
    num_windows = min(trainer.config.eval.num_samples, held_out.num_samples)
    num_micro_batches = -(-num_windows // size)
    totals: dict[str, list[float]] = {}
    num_bytes = 0.0
    for turn in range(-(-num_micro_batches // group.num_ranks)):
        trainer.recorder.still()
        index = turn * group.num_ranks + group.rank
        first = min(index, num_micro_batches - 1) * size
        batch = held_out.batch(first, size)
        # Rows past the last window, and a rank's turn past the last micro-batch, weigh nothing.
        without_weight(batch, max(0, num_windows - first if index < num_micro_batches else 0))
        tensors = trainer.prepared(batch)
        for name, (total, weight) in trainer.engine.evaluate(trainer.objective, tensors).items():
            sums = totals.setdefault(name, [0.0, 0.0])
            sums[0] += total.item()
            sums[1] += weight.item()
        num_bytes += trainer.task.scored_bytes(tensors)
    flat = trainer.engine.sum_over_ranks([num_bytes, *(value for sums in totals.values() for value in sums)])
    return dict(zip(totals, zip(flat[1::2], flat[2::2], strict=True), strict=True)), flat[0]


def _continue_prompt(trainer: "Trainer", step: int) -> None:
    """Sampled without a cache: every rank runs the same forward, as sharded parameters require."""
    settings, context = trainer.config.eval, trainer.config.model.context
    prompt = trainer.tokenizer.encode(settings.prompt)[-context // 2 :]
    tokens = list(prompt)
    for count in range(min(context - len(tokens), settings.sample_tokens)):
        trainer.recorder.still()
        logits = trainer.engine.logits(torch.tensor([tokens], device=trainer.group.device))
        tokens.append(choose(logits[0, -1].float(), CONTINUATION, uniform_of(0, "sample", count)))
    trainer.recorder.sample(step, settings.prompt, trainer.tokenizer.decode(tokens[len(prompt) :]))
