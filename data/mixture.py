"""Mixtures: several streams read as one, in asked proportions that may change with the tokens seen.

Each position belongs to one source, and a source's samples are taken in its own order, none left out.
How the counts stay within one sample of the asked shares everywhere: `data.proportions`.

Shares are exact when the weights have a common denominator of at most MAX_DENOMINATOR, as 0.7, 0.2 and 0.1
have; others (those by tokens, mostly) are rounded once to whole parts of about so many. `shares` tells.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from fractions import Fraction
from typing import Any

import numpy as np

from data.batches import Batch, Stream, WindowStream
from data.config import MixtureStage, OrderConfig
from data.packing import PackedStream
from data.proportions import Proportions, Stage
from data.shards import Dataset
from data.split import Split
from seedbed.errors import ConfigError, DataError, nearest

MAX_DENOMINATOR = 2**16

# Repeated up to four times, data are worth nearly as much as new; beyond, less and less (Muennighoff et
# al. 2023, "Scaling Data-Constrained Language Models", arXiv:2305.16264).
WORTHWHILE_EPOCHS = 4


class MixtureStream:
    """The streams of `streams` by name, all of one context, mixed as `stages` say.

    A stage holds from the position at which `from_tokens` tokens were seen; empty weights are by the
    tokens of the sources (no stages: one with empty weights). ConfigError for weights that name an
    unknown source, leave one without any, or are not positive and finite.
    """

    def __init__(self, streams: Mapping[str, Stream[Any]], stages: Sequence[MixtureStage] = ()) -> None:
        contexts = {stream.context for stream in streams.values()}
        if len(contexts) != 1:
            raise ValueError(f"the streams of a mixture have one context, not {sorted(contexts)}")
        self.streams = dict(streams)
        self.names = tuple(streams)
        self.context = contexts.pop()
        self.num_samples = sum(stream.num_samples for stream in streams.values())
        self.shares = self._stages(stages or (MixtureStage(from_tokens=0, weights={}),))
        """Position from which they hold, and whole shares in the order of `names`, of each stage."""
        self._proportions = Proportions(self.shares)

    def batch(self, position: int, count: int) -> Any:
        """Samples position .. position + count - 1 of the mixture."""
        sources, indices = self._proportions.choose(position, count)
        places = {int(source): np.flatnonzero(sources == source) for source in np.unique(sources)}
        if not places:
            return self.streams[self.names[0]].batch(0, 0)
        # A source's samples follow each other, so one request per source has them all.
        parts = {
            source: self.streams[self.names[source]].batch(int(indices[where[0]]), len(where))
            for source, where in places.items()
        }
        if len(parts) == 1:
            return parts.popitem()[1]
        columns: dict[str, Any] = {}
        kind = type(next(iter(parts.values())))
        for field in fields(kind):
            of_each = {source: getattr(part, field.name) for source, part in parts.items()}
            first = next(iter(of_each.values()))
            columns[field.name] = np.empty((count, *first.shape[1:]), dtype=first.dtype)
            for source, values in of_each.items():
                columns[field.name][places[source]] = values
        return kind(**columns)

    def sources(self, position: int, count: int) -> list[tuple[str, int]]:
        """[count]: the source that each sample comes from, and which of the source's samples it is."""
        sources, indices = self._proportions.choose(position, count)
        return [(self.names[source], index) for source, index in zip(sources, indices.tolist(), strict=True)]

    def counts(self, position: int) -> dict[str, int]:
        """Samples that each source gave before `position`."""
        return dict(zip(self.names, self._proportions.counts(position), strict=True))

    def epochs_of(self, position: int) -> dict[str, float]:
        """How often each source was gone through before `position`."""
        return {name: count / self.streams[name].num_samples for name, count in self.counts(position).items()}

    def epoch_warnings(self, num_samples: int) -> list[str]:
        """A line for each source that a run of `num_samples` samples goes through too often to learn more."""
        return [
            f"{name} is gone through {epochs:.1f} times: beyond {WORTHWHILE_EPOCHS} epochs, repeated data "
            "teach less and less; give it less weight, or more data"
            for name, epochs in self.epochs_of(num_samples).items()
            if epochs > WORTHWHILE_EPOCHS
        ]

    def _stages(self, stages: Sequence[MixtureStage]) -> tuple[Stage, ...]:
        begins = [stage.from_tokens for stage in stages]
        if begins[0] != 0:
            raise ConfigError(
                f"the first stage of the mixture begins at {begins[0]:,} tokens",
                "set from_tokens = 0 in the first of order.stages",
            )
        starts = [-(-begin // self.context) for begin in begins]
        if any(later <= earlier for earlier, later in itertools.pairwise(starts)):
            raise ConfigError(
                f"the stages of the mixture begin at {', '.join(f'{begin:,}' for begin in begins)} tokens, "
                f"which does not ascend by a sample of {self.context:,} tokens or more",
                "put order.stages in ascending order of from_tokens",
            )
        weights = [self._weights(stage) for stage in stages]
        for name in self.names:
            if not any(name in given for given in weights):
                raise ConfigError(
                    f"the mixture gives no weight to {name}",
                    "add it to order.weights, or to a stage, or take it out of data.paths",
                )
        return tuple(
            Stage(start, whole_shares([given.get(name, Fraction(0)) for name in self.names]))
            for start, given in zip(starts, weights, strict=True)
        )

    def _weights(self, stage: MixtureStage) -> dict[str, Fraction]:
        """The weights of one stage as they were written, checked."""
        for name, weight in stage.weights.items():
            if name not in self.streams:
                raise ConfigError(
                    f"the mixture gives a weight to {name!r}, which is none of the datasets "
                    f"{', '.join(self.names)}",
                    f"use {nearest(name, self.names) or 'one of these names'}, or add it to data.paths",
                )
            if not (math.isfinite(weight) and weight > 0):
                raise ConfigError(
                    f"the weight of {name} in the mixture is {weight}",
                    "give a positive number, or leave the name out of the stage in which it is not read",
                )
        if stage.weights:
            return {name: Fraction(str(weight)) for name, weight in stage.weights.items()}
        return {name: Fraction(stream.num_samples) for name, stream in self.streams.items()}


def whole_shares(weights: Sequence[Fraction]) -> tuple[int, ...]:
    """Whole numbers in proportion to `weights`, exactly if their sum can be at most MAX_DENOMINATOR.

    Else rounded so that the smallest is nearly exact, and no weight above 0 becomes 0.
    """
    unit = math.lcm(*(weight.denominator for weight in weights))
    exact = [int(weight * unit) for weight in weights]
    divisor = math.gcd(*exact)
    exact = [share // divisor for share in exact]
    if sum(exact) <= MAX_DENOMINATOR:
        return tuple(exact)
    total, smallest = sum(weights), min(weight for weight in weights if weight)
    parts_of_smallest = MAX_DENOMINATOR * smallest // total
    scale = parts_of_smallest / smallest if parts_of_smallest else MAX_DENOMINATOR / total
    return tuple(max(1, round(weight * scale)) if weight else 0 for weight in weights)


def check_same_tokenizer(datasets: Mapping[str, Dataset]) -> None:
    """DataError when two datasets were made by different tokenizers: their ids mean different things."""
    (first, reference), *others = datasets.items()
    for name, dataset in others:
        if dataset.tokenizer_fingerprint != reference.tokenizer_fingerprint:
            raise DataError(
                f"{first} and {name} were made by different tokenizers (fingerprints "
                f"{reference.tokenizer_fingerprint[:16]} and {dataset.tokenizer_fingerprint[:16]})",
                f"build {name} again, with the tokenizer file in {reference.location} as data.tokenizer",
            )


def mixed(streams: Mapping[str, Stream[Any]], order: OrderConfig) -> Stream[Any]:
    """The streams by name, as `order` mixes them; one that is alone, by itself."""
    if len(streams) == 1 and not order.weights and not order.stages:
        return next(iter(streams.values()))
    stages = order.stages or (MixtureStage(from_tokens=0, weights=order.weights),)
    return MixtureStream(streams, stages)


def packed(split: Split, order: OrderConfig, context: int, seed: int) -> Stream[Batch]:
    """Windows of `context` tokens of a split, as `order` fills them with documents."""
    if order.packing == "concat":
        return WindowStream(split, context, seed, within_documents=order.within_documents)
    return PackedStream(
        split, context, seed, order.packing, order.overflow, within_documents=order.within_documents
    )
