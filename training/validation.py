"""Validation while training: the loss on held-out windows, and a continuation to look at.

The windows are drawn once, by seed, from the whole held-out split, so that a few dozen of them speak
for all of its files; every validation of a run uses the same ones.
"""

import math
import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from data.batches import Batch, Stream
from models.generation.sampler import SamplingOptions, choose
from seedbed.randomness import uniform_of
from training.objectives import TensorBatch
from training.state import TrainState

if TYPE_CHECKING:
    from training.trainer import Trainer

CONTINUATION = SamplingOptions(temperature=0.8, top_p=0.95)


def validate(trainer: "Trainer", state: TrainState) -> None:
    """Record loss and bits per byte on the validation windows; continue the prompt, if there is one."""
    if (held_out := trainer.holdout_data) is None:
        return
    started = time.perf_counter()
    trainer.recorder.beat(state.step, "evaluating")
    loss_sum, weight_sum, num_bytes = _totals(trainer, held_out)
    state.validated = loss_sum / weight_sum
    trainer.recorder.row(
        "eval",
        state.step,
        tokens=trainer.tokens(state),
        val_loss=state.validated,
        # Of a tokenizer that loses text, the bytes of its tokens are not those of the text.
        val_bits_per_byte=None
        if trainer.tokenizer.lossy_because or not num_bytes
        else loss_sum / math.log(2) / num_bytes,
        eval_s=time.perf_counter() - started,
    )
    if trainer.config.eval.prompt:
        _continue_prompt(trainer, state.step)


def _totals(trainer: "Trainer", held_out: Stream[Batch]) -> list[float]:
    """[summed loss in nats, scored tokens, their bytes] over all validation windows and ranks."""
    size, group = trainer.layout.micro_batch_size, trainer.group
    num_windows = min(trainer.config.eval.num_samples, held_out.num_samples)
    num_micro_batches = -(-num_windows // size)
    totals = [0.0, 0.0, 0.0]
    for turn in range(-(-num_micro_batches // group.num_ranks)):
        index = turn * group.num_ranks + group.rank
        first = min(index, num_micro_batches - 1) * size
        batch = trainer.batch(held_out, first)
        # Rows past the last window, and a rank's turn past the last micro-batch, weigh nothing.
        valid = num_windows - first if index < num_micro_batches else 0
        batch.weights[max(0, valid) :] = 0
        loss, weight = trainer.engine.evaluate(trainer.objective, batch)
        totals[0] += loss.item()
        totals[1] += weight.item()
        totals[2] += _bytes_of(trainer, batch)
    return trainer.engine.sum_over_ranks(totals)


def _bytes_of(trainer: "Trainer", batch: TensorBatch) -> float:
    lengths = trainer.token_bytes[batch.targets.cpu().numpy()]
    return float(np.sum(lengths * batch.weights.cpu().numpy()))


def _continue_prompt(trainer: "Trainer", step: int) -> None:
    """Sampled without a cache: every rank runs the same forward, as sharded parameters require."""
    settings, context = trainer.config.eval, trainer.config.model.context
    prompt = trainer.tokenizer.encode(settings.prompt)[-context // 2 :]
    tokens = list(prompt)
    for count in range(min(context - len(tokens), settings.sample_tokens)):
        logits = trainer.engine.logits(torch.tensor([tokens], device=trainer.group.device))
        tokens.append(choose(logits[0, -1].float(), CONTINUATION, uniform_of(0, "sample", count)))
    trainer.recorder.sample(step, settings.prompt, trainer.tokenizer.decode(tokens[len(prompt) :]))
