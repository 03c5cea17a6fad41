"""Which items of an evaluation stand in the text that a model was trained on, and what that is worth.

The rule is that of `data.decontamination`: an item overlaps when one of its runs of 13 words is in a training
document; one of 8 to 12 words counts as a whole, and shorter ones cannot be told. Here the training text is
as it was trained on, decoded from its shards, whatever a filter before it was meant to take out.

An overlap is no proof that the model knows the answer, nor is its absence one that it does not: a translation
or another wording is not found. The score on the clean items is the one to report.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data.decontamination import Decontaminator, Item
from evals.intervals import Halves, Measured, measure
from evals.items import split_texts
from evals.metrics.registry import metric
from evals.task_results import ItemScores, named
from seedbed.errors import DataError

DOCUMENTS_AT_ONCE = 256

State = Literal["clean", "overlaps", "too short"]


@dataclass(frozen=True)
class Overlap:
    """Of one item with the training text."""

    state: State
    share: float
    """Of its runs of words."""
    example: str
    """The first run that is there; empty for none."""


def overlaps(items: Mapping[str, str], documents: Iterable[str], num_words: int = 13) -> dict[str, Overlap]:
    """Of every item, by name, of which the text is given. Documents are read once, and not kept."""
    looked_for = [Item(name, text) for name, text in items.items()]
    index = Decontaminator((), num_words, looked_for)
    seen: set[tuple[str, ...]] = set()
    rest: Iterator[str] = iter(documents)
    while batch := list(islice(rest, DOCUMENTS_AT_ONCE)):
        seen |= index.ngrams_in(batch)
    return {item.name: _overlap(index.ngrams_of(item.text), seen) for item in looked_for}


def _overlap(ngrams: list[tuple[str, ...]], seen: set[tuple[str, ...]]) -> Overlap:
    if not ngrams:
        return Overlap("too short", 0.0, "")
    found = [ngram for ngram in ngrams if ngram in seen]
    if not found:
        return Overlap("clean", 0.0, "")
    return Overlap("overlaps", len(found) / len(ngrams), " ".join(found[0]))


def overlaps_with_dataset(
    items: Mapping[str, str], dataset: Path, split: str = "train", num_words: int = 13
) -> dict[str, Overlap]:
    """Of every item with a split of a dataset's shards."""
    texts = (text.decode() for text in split_texts(dataset, split))
    return overlaps(items, texts, num_words)


@dataclass(frozen=True)
class Contamination:
    """A metric with and without the items that the training text holds."""

    metric: str
    all: Measured
    clean: Measured | None
    """Of items that do not overlap, those that are too short to tell among them; None without any."""
    overlapping: Measured | None
    gain: Measured | None
    """What the overlapping items have more than the clean ones."""
    counts: dict[str, int]
    items: dict[str, Overlap]
    """Those that overlap, the most first."""

    def as_json(self) -> dict[str, Any]:
        parts = {name: getattr(self, name) for name in ("all", "clean", "overlapping", "gain")}
        return {
            "metric": self.metric,
            **{name: part.as_json() if part else None for name, part in parts.items()},
            "counts": self.counts,
            "items": {name: asdict(overlap) for name, overlap in self.items.items()},
        }


def contamination(found: ItemScores, known: Mapping[str, Overlap], name: str) -> Contamination:
    """The metric `name` on all items, on clean ones and on the others. DataError when an item was not looked
    for."""
    if lacking := [item for item in found.names if item not in known]:
        raise DataError(f"not looked for in the training text: {named(lacking)}", "look for all items")
    one = metric(name)
    states = [known[item].state for item in found.names]
    is_seen_N = np.array([state == "overlaps" for state in states], dtype=np.bool_)
    clean, overlapping = found.only(~is_seen_N), found.only(is_seen_N)
    gain = None
    if len(clean) and len(overlapping):
        halves = Halves(one.statistic(clean.rows), one.statistic(overlapping.rows), is_seen_N)
        gain = measure(halves, found.clusters())
    seen = {item: known[item] for item in found.names if known[item].state == "overlaps"}
    return Contamination(
        metric=name,
        all=one.measure(found.rows, found.clusters()),
        clean=one.measure(clean.rows, clean.clusters()) if len(clean) else None,
        overlapping=one.measure(overlapping.rows, overlapping.clusters()) if len(overlapping) else None,
        gain=gain,
        counts={state: states.count(state) for state in ("clean", "overlaps", "too short")},
        items=dict(sorted(seen.items(), key=lambda entry: (-entry[1].share, entry[0]))),
    )
