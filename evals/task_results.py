"""What a task found: the scores of its items, as a file, and the numbers that follow from them.

Of each item one line of JSON: "item" (its name, unique), "cluster" (its document), "source", and one key for
each thing that was found of it, as `evals.metrics` names them. All numbers with their intervals can be worked
out anew from that file, and two such files can be compared item by item.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evals.calibration import reliability_rows
from evals.intervals import Clusters, Measured, Over, clusters_of
from evals.metrics.choices import CONFIDENCES, confidence
from evals.metrics.registry import metric, with_companions
from seedbed.errors import DataError
from seedbed.files import write_atomic
from training.run_directory import read_json

REQUIRED = ("item", "cluster", "source")
MAX_NAMED = 3
MAX_SOURCES = 50


@dataclass(frozen=True)
class ItemScores:
    """The lines of a scores file, and the digest of what was asked."""

    rows: Sequence[Mapping[str, Any]]
    digest: str
    """Over the content of the items: equal for two models that were asked the same. A row may have a "digest"
    of its own."""

    def __post_init__(self) -> None:
        """DataError when a row lacks a key, or two have one name."""
        for number, row in enumerate(self.rows, start=1):
            if not isinstance(row, Mapping):
                raise DataError(f"row {number} of the scores is no JSON object", "score the items again")
            if missing := [key for key in REQUIRED if key not in row]:
                raise DataError(f"row {number} of the scores has no {missing[0]!r}", "score the items again")
        twice = [name for name, count in Counter(self.names).items() if count > 1]
        if twice:
            raise DataError(f"{named(twice)} more than once among the scores", "give every item its own name")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def names(self) -> list[str]:
        return [str(row["item"]) for row in self.rows]

    def clusters(self, over: Over | None = None) -> Clusters:
        """See `evals.intervals.clusters_of`."""
        return clusters_of(
            [str(row["cluster"]) for row in self.rows], [str(row["source"]) for row in self.rows], over
        )

    def only(self, keep: Iterable[bool]) -> "ItemScores":
        """Some of the items; their digest says of which they were taken."""
        rows = [row for row, is_kept in zip(self.rows, keep, strict=True) if is_kept]
        return ItemScores(rows, f"{self.digest}:{len(rows)}")

    def by_source(self) -> dict[str, "ItemScores"]:
        """The source with most items first."""
        groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for row in self.rows:
            groups[str(row["source"])].append(row)
        largest = sorted(groups.items(), key=lambda entry: (-len(entry[1]), entry[0]))
        return {name: ItemScores(rows, f"{self.digest}:{name}") for name, rows in largest}


def named(names: Sequence[str]) -> str:
    """A few of them."""
    shown = ", ".join(names[:MAX_NAMED])
    return shown if len(names) <= MAX_NAMED else f"{shown} and {len(names) - MAX_NAMED:,} more"


@dataclass(frozen=True)
class TaskResult:
    """The numbers of one task."""

    name: str
    metrics: dict[str, Measured]
    """The first is the task's own; smooth companions come last."""
    items: str
    """Digest of the items."""
    scores: str
    """The file of the items' scores, relative to the result's; empty when there is none."""
    num_sources: int = 1
    by_source: dict[str, dict[str, Measured]] = field(default_factory=dict)
    """Of the MAX_SOURCES largest; empty where there is only one."""
    reliability: list[dict[str, Any]] = field(default_factory=list)
    """Bins of the diagram, where one of the metrics is a calibration error."""

    @property
    def primary(self) -> str:
        return next(iter(self.metrics))

    def as_json(self) -> dict[str, Any]:
        """For a result file; the primary metric stands on top, as for other tasks."""
        return {
            **self.metrics[self.primary].as_json(),
            "metric": self.primary,
            "unit": metric(self.primary).unit or self.primary,
            "metrics": {name: _described(name, found) for name, found in self.metrics.items()},
            "num_sources": self.num_sources,
            "by_source": {
                source: {name: found.as_json() for name, found in row.items()}
                for source, row in self.by_source.items()
            },
            "reliability": self.reliability,
            "items": self.items,
            "scores": self.scores,
        }


def _described(name: str, found: Measured) -> dict[str, Any]:
    one = metric(name)
    return {
        **found.as_json(),
        "greater_is_better": one.greater_is_better,
        "smooth": one.smooth,
        "unit": one.unit,
    }


def summarize(name: str, found: ItemScores, metrics: Sequence[str], scores_file: str = "") -> TaskResult:
    """The metrics of these names and their smooth companions, overall and by source.

    A companion that needs what the items do not have is left out. DataError without items.
    """
    if not len(found):
        raise DataError(f"the task {name} has no item", "give it at least one")
    asked = [metric(one) for one in metrics]
    chosen = asked + [
        one
        for one in with_companions(list(metrics))
        if one not in asked and all(row.get(key) is not None for row in found.rows for key in one.needs)
    ]
    clusters, sources = found.clusters(), found.by_source()
    largest = list(sources.items())[:MAX_SOURCES] if len(sources) > 1 else []
    calibrated = next((CONFIDENCES[one.name] for one in chosen if one.name in CONFIDENCES), None)
    return TaskResult(
        name=name,
        metrics={one.name: one.measure(found.rows, clusters) for one in chosen},
        items=found.digest,
        scores=scores_file,
        num_sources=len(sources),
        by_source={
            source: {one.name: one.measure(own.rows, own.clusters("documents")) for one in chosen}
            for source, own in largest
        },
        reliability=reliability_rows(*confidence(found.rows, calibrated), clusters) if calibrated else [],
    )


def write_scores(path: Path, found: ItemScores) -> None:
    """One line for each item; whole or not at all. The digest belongs into the result beside it."""
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found.rows))


def read_scores(path: Path, digest: str) -> ItemScores:
    """What `write_scores` wrote, with the digest that the result has."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        return ItemScores([json.loads(line) for line in lines if line.strip()], digest)
    except OSError as error:
        raise DataError(f"the scores {path} cannot be read: {error.strerror}", "evaluate again") from error
    except ValueError as error:
        raise DataError(f"the scores {path} are damaged: {error}", "evaluate again") from error


def scores_of(result: Path) -> tuple[ItemScores, str]:
    """The scores that a result file speaks of, and its primary metric. DataError when it has none."""
    found = read_json(result)
    if not found.get("scores") or not found.get("items"):
        raise DataError(
            f"{result} is no result of a task with scores of its items",
            "give a file of RUN/evals that a task of this version wrote",
        )
    scores = read_scores(result.parent / str(found["scores"]), str(found["items"]))
    judged = [row for row in scores.rows if row.get("is_judged", True)]
    return ItemScores(judged, scores.digest), str(found.get("metric"))
