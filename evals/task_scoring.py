"""Tasks of task files on a checkpoint: where their items come from, on how many processes they are scored."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from data.config import DataConfig
from data.sources import Drop, open_source
from data.tokenizers import load_tokenizer
from evals.items import load_items
from evals.scoring import Backend, CachedBackend, Scorer
from evals.scoring.cached import BATCH_SIZE
from evals.scoring.dispatch import dispatched, fitted
from evals.scoring.ranks import RanksBackend
from evals.task_probes import by_sources_seen, changes_named, in_training, under_changes
from evals.task_results import ItemScores
from evals.tasks.definition import TaskDefinition
from evals.tasks.formats import read_file
from evals.tasks.items import TaskItem
from evals.tasks.local import Text, built
from evals.tasks.running import Question, num_requests, prepared, run
from seedbed.errors import UsageError
from seedbed.progress import Progress
from training.checkpoint.models import LoadedModel

NUM_BUILT = 200


@dataclass(frozen=True)
class Asked:
    """How tasks of task files are run."""

    num_fewshot: int | None = None
    """In place of the task's own number of examples."""
    limit: int | None = None
    """The first so many items."""
    ranks: int = 1
    changes: Sequence[str] = ()
    """Perturbations that items are asked under, too."""
    trained_on: Path | None = None
    """The dataset whose train split is looked through for the items."""
    unseen: Path | None = None
    """The dataset whose train split says which sources were learned from."""


@contextlib.contextmanager
def scorer_of(
    checkpoint: LoadedModel,
    ranks: int,
    batch_size: int | None,
    device: str = "cpu",
    memory: Mapping[str | int, int] | None = None,
) -> Iterator[Scorer]:
    """A scorer in this process, or one on `ranks` of them; with `memory`, one whose blocks are spread over
    devices, host and disk: see `fitted`."""
    tokenizer = load_tokenizer(checkpoint.tokenizer_path)
    size = batch_size or BATCH_SIZE
    model = checkpoint.decoder()
    if memory:
        if ranks > 1:
            raise UsageError("--memory spreads one model over all devices", "leave --ranks out")
        devices = [place for place in memory if isinstance(place, int)]
        if devices and max(devices) >= torch.cuda.device_count():
            raise UsageError(
                f"there is no GPU {max(devices)}: {torch.cuda.device_count()} are here", "such as cpu=60GB"
            )
        with tempfile.TemporaryDirectory() as folder:
            main = next(iter(memory))
            places = fitted(model, memory, main=main)
            spread = dispatched(model, places, main=main, folder=Path(folder), batch_size=size)
            spread.decode = tokenizer.decode
            yield Scorer(spread, tokenizer)
        return
    if ranks == 1:
        backend: Backend = CachedBackend(model.to(device), batch_size=size, decode=tokenizer.decode)
        yield Scorer(backend, tokenizer)
        return
    if device != "cpu":
        raise UsageError(f"{ranks} ranks on {device}", "use one rank, or the CPU")
    with RanksBackend(checkpoint.path, ranks, batch_size=size, context=model.config.context) as several:
        yield Scorer(several, tokenizer)


def run_task(
    task: TaskDefinition, scorer: Scorer, asked: Asked, own_data: Path | None
) -> tuple[dict[str, Any], ItemScores]:
    """(result, the scores of its items). `own_data` is where held-out texts are; UsageError where a task
    wants some and it is None."""
    question, origin = question_of(task, scorer, asked, own_data)
    changes = changes_named(asked.changes)
    with Progress(task.name, num_requests(question) * (1 + len(changes))) as bar:
        result, scores = run(question, scorer, bar.advance)
        judged = scores.only(row["is_judged"] for row in scores.rows)
        if (changes or asked.trained_on or asked.unseen) and not result.get("metric"):
            raise UsageError(f"{task.name} is not judged: there is no score to probe", "leave it out")
        if changes:
            name = str(result["metric"])
            result["robustness"] = under_changes(question, scorer, judged, name, changes, bar.advance)
    if asked.trained_on:
        result["contamination"] = in_training(question, judged, str(result["metric"]), asked.trained_on)
    if asked.unseen:
        result["distribution"] = by_sources_seen(judged, str(result["metric"]), asked.unseen)
    return {**result, **about(task, scorer, asked, origin)}, scores


def question_of(
    task: TaskDefinition, scorer: Scorer, asked: Asked, own_data: Path | None
) -> tuple[Question, dict[str, Any]]:
    """(the task ready to be asked, where its items are from)."""
    items, origin = items_of(task, scorer, own_data)
    pool = None
    if task.few_shot.path:
        pool = read_file(task.items.format, task.path(task.few_shot.path), task.items.subset)
    return prepared(task, items, pool=pool, num_fewshot=asked.num_fewshot, limit=asked.limit), origin


def about(task: TaskDefinition, scorer: Scorer, asked: Asked, origin: dict[str, Any]) -> dict[str, Any]:
    """What a result says of how it came about."""
    method = {
        "kind": task.kind,
        "context": scorer.backend.context,
        "few_shot_seed": task.few_shot.seed,
        "ranks": asked.ranks,
        "limit": asked.limit,
    }
    told = {"data": origin, "method": method, "description": task.description, "baselines": []}
    return {**told, "tokenizer_fingerprint": scorer.tokenizer.fingerprint}


def items_of(
    task: TaskDefinition, scorer: Scorer, own_data: Path | None
) -> tuple[Sequence[TaskItem], dict[str, Any]]:
    """The items of a task, and where they are from."""
    if task.items.format:
        path = task.path(task.items.path)
        items = read_file(task.items.format, path, task.items.subset)
        return items[: task.items.num or None], {"path": str(path), "split": None}
    texts, origin = _texts(task, scorer, own_data)
    return built(task.items.build, texts, task.items.seed, task.items.num or NUM_BUILT), origin


def _texts(task: TaskDefinition, scorer: Scorer, own_data: Path | None) -> tuple[list[Text], dict[str, Any]]:
    if task.items.texts == "stdlib":
        source = open_source(DataConfig(source="stdlib"))
        found = [one for one in source.documents(lambda num_bytes: None) if not isinstance(one, Drop)]
        return [Text(one.id, one.source, one.text) for one in found], {"path": "stdlib", "split": None}
    if own_data is None:
        raise UsageError(
            f"{task.name} is made of held-out texts, and there are none", "name some with --data"
        )
    item_set = load_items(own_data, scorer.tokenizer)
    texts = [Text(item.id, item.source, item.text.decode()) for item in item_set.items]
    return texts, item_set.origin
