"""What else is asked of a task's score: how it stands changes of its questions, and what it is without items
that the training text holds."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from data.shards import Dataset
from evals.bits_per_byte import top_level
from evals.contamination import contamination, overlaps_with_dataset
from evals.intervals import Measured
from evals.robustness import PERTURBATIONS, Perturbation, by_distribution, robustness
from evals.scoring import Scorer
from evals.task_results import ItemScores
from evals.tasks.prompts import answers_of, context_of
from evals.tasks.running import Question, run
from seedbed.errors import DataError, UsageError, did_you_mean

ALL = "all"


def changes_named(names: Sequence[str]) -> list[Perturbation]:
    """Perturbations by name, by kind, or "all"; UsageError for what is neither."""
    kinds = {one.kind for one in PERTURBATIONS.values()}
    found: dict[str, Perturbation] = {}
    for name in names:
        known = [ALL, *sorted(kinds), *PERTURBATIONS]
        if name not in known:
            remedy = did_you_mean(name, known, f"there are {', '.join(known)}")
            raise UsageError(f"there is no perturbation {name!r}", remedy)
        found |= {one.name: one for one in PERTURBATIONS.values() if name in (ALL, one.kind, one.name)}
    return list(found.values())


def under_changes(
    question: Question,
    scorer: Scorer,
    clean: ItemScores,
    name: str,
    changes: Sequence[Perturbation],
    advance: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """The metric `name` when what stands before each answer is changed: see `Robustness`.

    Examples and answers stay as they are.
    """
    # A changed item is compared with the one that it was made of, whatever metrics lack there.
    by_name = {
        change.name: replace(_judged(run(replace(question, change=change), scorer, advance)[1]), digest="")
        for change in changes
    }
    kept = set(clean.names).intersection(*(found.names for found in by_name.values()))
    alike = {change: _only(found, kept, clean.digest) for change, found in by_name.items()}
    return robustness(_only(clean, kept, clean.digest), alike, name).as_json()


def in_training(question: Question, found: ItemScores, name: str, dataset: Path) -> dict[str, Any]:
    """The metric `name` with and without items that stand in the train split: see `Contamination`."""
    texts = {
        item.id: " ".join(
            [context_of(question.task, item), *answers_of(question.task, item), *item.references]
        )
        for item in question.items
    }
    return contamination(found, overlaps_with_dataset(texts, dataset), name).as_json()


def by_sources_seen(found: ItemScores, name: str, dataset: Path) -> dict[str, Any]:
    """The metric `name` on items of sources that the train split has and on others: see `by_distribution`;
    {"refused"} where all are on one side."""
    seen = {top_level(str(about["source"])) for about, _ in Dataset.open(dataset).split("train").documents()}
    try:
        told = by_distribution(found, seen, name)
    except DataError as error:
        return {"metric": name, "refused": error.message}
    return {"metric": name} | {
        key: value.as_json() if isinstance(value, Measured) else value for key, value in told.items()
    }


def _judged(found: ItemScores) -> ItemScores:
    return found.only(row.get("is_judged", True) for row in found.rows)


def _only(found: ItemScores, names: set[str], digest: str) -> ItemScores:
    rows = [row for row in found.rows if row["item"] in names]
    return ItemScores(sorted(rows, key=lambda row: str(row["item"])), digest)
