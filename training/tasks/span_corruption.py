"""Filling holes in a text, with an encoder-decoder (Raffel et al. 2020, T5).

A hole is marked by a sentinel: the tokenizer's own (<extra_id_0>, ...), or else an id beyond its vocabulary,
which only the model knows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from data.batches import Stream, WindowStream
from data.config import OrderConfig
from data.split import Split
from models.families import AnyModelConfig
from models.t5.config import T5Config
from training.config import Config
from training.objectives import Objective
from training.objectives.sequence_to_sequence import SequenceToSequence, SequenceToSequenceBatch
from training.objectives.span_corruption import SpanCorruption
from training.tasks.base import Datasets, Task
from training.tasks.vocabulary import NUM_SENTINELS, first, with_vocabulary


@dataclass(frozen=True)
class CorruptedBatch:
    """What an encoder-decoder learns from at once."""

    tokens: NDArray[np.int64]
    """[B, T] the text with its holes."""
    targets: NDArray[np.int64]
    """[B, U] what was in them."""
    weights: NDArray[np.float32]
    """[B, U] how much each target counts."""

    def __len__(self) -> int:
        return len(self.tokens)


class CorruptedStream:
    """Windows of a split with holes in them; those of a sample belong to (seed, "spans", epoch, window).

    Windows are of one length, so that inputs fill the context and nothing is padded.
    """

    def __init__(self, split: Split, spans: SpanCorruption, context: int, seed: int) -> None:
        self.context, self.spans, self.seed = context, spans, seed
        spans.check(spans.window(context))
        self._windows = WindowStream(split, spans.window(context), seed)
        self.num_samples = self._windows.num_samples

    def batch(self, position: int, count: int) -> CorruptedBatch:
        """Samples position .. position + count - 1 of the endless stream."""
        texts = self._windows.batch(position, count).tokens
        windows = self._windows.windows(position, count).tolist()
        samples = [
            self.spans.corrupt(text, self.seed, (position + row) // self.num_samples, windows[row])
            for row, text in enumerate(texts)
        ]
        num_inputs, num_targets = self.spans.lengths(self._windows.context)
        tokens = np.array([s.inputs for s in samples], dtype=np.int64).reshape(count, num_inputs)
        targets = np.array([s.targets for s in samples], dtype=np.int64).reshape(count, num_targets)
        return CorruptedBatch(tokens, targets, np.ones(targets.shape, dtype=np.float32))


class SpanCorruptionTask(Task):
    """Windows of text with `objective.noise_density` of the tokens hidden."""

    settings = ("label_smoothing", "z_loss", "noise_density", "mean_span_length")

    def __init__(self, config: Config, datasets: Datasets) -> None:
        assert isinstance(config.model, T5Config)
        self.config, self._start_id = config, config.model.start_id
        tokenizer = first(datasets).tokenizer()
        sentinels = tuple(_own_sentinels(tokenizer.special_ids))
        beyond = range(tokenizer.vocab_size, tokenizer.vocab_size + NUM_SENTINELS)
        self._spans = SpanCorruption(
            sentinels or tuple(beyond),
            tokenizer.end_of_text_id,
            config.objective.noise_density,
            config.objective.mean_span_length,
        )

    @classmethod
    def filled_in(cls, config: Config, datasets: Datasets) -> AnyModelConfig:
        own = tuple(_own_sentinels(first(datasets).tokenizer().special_ids))
        return with_vocabulary(config.model, datasets, 0 if own else NUM_SENTINELS)

    def objective(self, device: torch.device) -> Objective:
        settings = self.config.objective
        return SequenceToSequence(self._start_id, settings.label_smoothing, settings.z_loss)

    def stream(self, split: Split, order: OrderConfig) -> Stream[CorruptedBatch]:
        return CorruptedStream(split, self._spans, self.config.model.context, self.config.run.seed)

    def tensors(self, batch: CorruptedBatch) -> SequenceToSequenceBatch:
        tokens = torch.from_numpy(batch.tokens)
        return SequenceToSequenceBatch(
            tokens,
            torch.ones_like(tokens, dtype=torch.bool),
            torch.from_numpy(batch.targets),
            torch.from_numpy(batch.weights),
        )


def _own_sentinels(special_ids: dict[str, int]) -> Iterator[int]:
    """The ids of <extra_id_0>, <extra_id_1> ... as far as they go."""
    number = 0
    while (name := f"<extra_id_{number}>") in special_ids:
        yield special_ids[name]
        number += 1
