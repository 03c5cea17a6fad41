"""Scores of a checkpoint, task by task, kept as files beside the run.

A result says on what it was computed (a digest of the items, of the dataset and of the tokenizer), from
which step and how, so that two results can be compared without asking anyone.
"""

import contextlib
import inspect
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import seedbed
from data.shards import Dataset
from data.tokenizers import load_tokenizer
from evals.baselines import baselines
from evals.bits_per_byte import bits_per_byte, by_source, estimate_as_json, score_documents
from evals.comparison import compare_tasks, described
from evals.hf_models import is_model_folder, scorer_of_folder
from evals.items import Item, is_dataset, load_items, split_texts
from evals.preferences import preference_scores
from evals.task_probes import changes_named
from evals.task_results import ItemScores, scores_of, write_scores
from evals.task_scoring import Asked, run_task, scorer_of
from evals.tasks.definition import TaskDefinition, is_task_file, load_task, task_names
from seedbed.errors import DataError, UsageError, did_you_mean
from seedbed.files import write_json
from seedbed.progress import Progress
from training.checkpoint.layout import list_steps, run_of, step_dir
from training.checkpoint.models import LoadedModel, load_model
from training.rewards.scoring import RewardScorer
from training.run_directory import read_json

BATCH_TOKENS = 8192
MAX_LOGITS_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class Options:
    """How to evaluate. `data` None means the holdout split of the dataset that the run was trained on."""

    data: Path | None = None
    with_baselines: bool = False
    batch_size: int | None = None
    """Windows in one forward pass; None takes as many as `_fitting_batch` finds."""
    stride: int | None = None
    device: str = "cpu"
    members: Sequence[Path] = ()
    """Reward models that are put together with the one that is scored, by `combine`."""
    combine: str = "mean"


Told = tuple[dict[str, Any], ItemScores | None]
"""What a task came to, and the scores of its items where it has any."""


def evaluate_both(run_or_step: Path, other: Path, tasks: Sequence[str], **how: Any) -> dict[str, Any]:
    """`evaluate` of both, and by task whether the first is better than `other`: {..., "comparisons"}.

    A task without scores of its items is refused.
    """
    if without := [task for task in tasks if task == "preferences"]:
        raise UsageError(f"{without[0]} cannot be compared item by item", "leave it out, or --compare")
    before, after = evaluate(other, tasks, **how), evaluate(run_or_step, tasks, **how)
    pairs = {}
    for name, old, new in zip(after["tasks"], before["files"], after["files"], strict=True):
        (first, metric), (second, _) = scores_of(Path(old)), scores_of(Path(new))
        pairs[name] = first, second, metric
    found = {name: one.as_json() | {"text": described(one)} for name, one in compare_tasks(pairs).items()}
    return after | {"compared_with": before, "comparisons": found}


def evaluate(
    run_or_step: Path,
    tasks: Sequence[str] = ("bits-per-byte",),
    data: Path | None = None,
    with_baselines: bool = False,
    *,
    batch_size: int | None = None,
    stride: int | None = None,
    device: str = "cpu",
    members: Sequence[Path] = (),
    combine: str = "mean",
    num_fewshot: int | None = None,
    limit: int | None = None,
    ranks: int = 1,
    memory: Mapping[str | int, int] | None = None,
    perturb: Sequence[str] = (),
    contamination: bool = False,
    unseen: bool = False,
) -> dict[str, Any]:
    """Run `tasks` on a run's newest good checkpoint, or on the step directory that is given.

    A task is one of `TASKS`, or of a task file: a shipped one by name, one's own by its path. `num_fewshot`,
    `limit`, `ranks` and `memory` (see `task_scoring`) are about those; the scores of their items are written
    beside the result. With `perturb` (see `task_probes`) they are asked under changes, too; with
    `contamination` the items are looked for in what the checkpoint was trained on, and with `unseen` those of
    sources that it was not trained on are told apart.

    Returns {"run", "step", "tasks": {task: result}, "files": [...]}, all of it JSON. Each result is also
    written to RUN/evals/, whole or not at all. Baselines are computed where the task has any. Errors:
    UsageError for an unknown task or data that is not there, DataError and CheckpointError for damage.
    """
    definitions = {task: definition_of(task) for task in tasks if task not in TASKS}
    _check_probes(tasks, definitions, perturb, bool(contamination or unseen or memory))
    options = Options(data, with_baselines, batch_size, stride, device, members, combine)
    if members and "preferences" not in tasks:
        raise UsageError("an ensemble has nothing but preferences to be scored on", "--tasks preferences")
    checkpoint = load_model(run_or_step)
    trained_on = own_dataset(checkpoint) if contamination else None
    sources_of = own_dataset(checkpoint) if unseen else None
    plain = Asked(ranks=ranks, changes=perturb, trained_on=trained_on, unseen=sources_of)
    asked = replace(plain, num_fewshot=num_fewshot, limit=limit)
    run_dir = run_of(checkpoint.path)
    results, files = {}, []
    with contextlib.ExitStack() as held:
        scorer = None
        if definitions:
            scorer = held.enter_context(scorer_of(checkpoint, ranks, batch_size, device, memory))
        for task in tasks:
            started, scores, name = time.monotonic(), None, task
            if scorer is not None and task in definitions:
                definition = definitions[task]
                own = data or _texts_of(checkpoint, definition)
                result, scores = run_task(definition, scorer, asked, own)
                name = definition.name
            else:
                result, scores = TASKS[task](checkpoint, options)
            results[name] = stamped(name, checkpoint.step, result, started)
            is_own = data is None and (task in TASKS or (asked == plain and not is_task_file(task)))
            files.append(str(write_result(run_dir, name, results[name], scores, is_own=is_own)))
    return {"run": str(run_dir), "step": checkpoint.step, "tasks": results, "files": files}


def evaluate_any(
    path: Path, tasks: Sequence[str], other: Path | None = None, *, all_steps: bool = False, **how: Any
) -> dict[str, Any]:
    """What is asked of a run or a step, alone, beside another or of all steps; or of a folder of
    `transformers`, for which not everything can be asked."""
    if other and all_steps:
        raise UsageError("--compare and --all-steps each say what else is scored", "give one of them")
    if is_model_folder(path):
        known, meant = (inspect.signature(one).parameters for one in (evaluate_folder, evaluate))
        wrong = [name for name in how if name not in known and how[name] not in (meant[name].default, {}, ())]
        if other or all_steps or wrong:
            named = "--compare and --all-steps are" if other or all_steps else f"--{wrong[0]} is"
            raise UsageError(f"{named} for runs, and {path} is a folder of transformers", "seedbed import it")
        return evaluate_folder(path, tasks, **{name: value for name, value in how.items() if name in known})
    if other:
        return evaluate_both(path, other, tasks, **how)
    return evaluate_steps(path, tasks, **how) if all_steps else evaluate(path, tasks, **how)


def evaluate_steps(run: Path, tasks: Sequence[str], **how: Any) -> dict[str, Any]:
    """`evaluate` of every step that a run keeps, oldest first; returned is the newest one's, with
    {"history": {task: [{"step", "value", "low", "high"}, ...]}}."""
    steps = list_steps(run)
    if not steps:
        raise UsageError(f"{run} keeps no step", "give a run directory, not one of its steps")
    history: dict[str, list[dict[str, Any]]] = {}
    for step in steps:
        told = evaluate(step_dir(run, step), tasks, **how)
        for task, found in told["tasks"].items():
            row = {name: found.get(name) for name in ("value", "low", "high")}
            history.setdefault(task, []).append({"step": step, **row})
    return {**told, "history": history}


def evaluate_folder(
    folder: Path,
    tasks: Sequence[str],
    data: Path | None = None,
    *,
    batch_size: int | None = None,
    device: str = "cpu",
    num_fewshot: int | None = None,
    limit: int | None = None,
    perturb: Sequence[str] = (),
) -> dict[str, Any]:
    """`evaluate` of a model of `transformers` as it lies in a folder, by task files alone; results are
    written to FOLDER/evals."""
    definitions = [definition_of(task) for task in tasks]
    _check_probes(tasks, dict(zip(tasks, definitions, strict=True)), perturb, of_items=True)
    scorer, asked = scorer_of_folder(folder, batch_size, device), Asked(num_fewshot, limit, changes=perturb)
    results, files = {}, []
    for task in definitions:
        started = time.monotonic()
        result, scores = run_task(task, scorer, asked, data)
        results[task.name] = stamped(task.name, 0, result, started)
        files.append(str(write_result(folder, task.name, results[task.name], scores, is_own=False)))
    return {"run": str(folder), "step": 0, "tasks": results, "files": files}


def _check_probes(
    tasks: Sequence[str], definitions: dict[str, TaskDefinition], perturb: Sequence[str], of_items: bool
) -> None:
    """Before anything is scored. What is asked is about changes, or `of_items` in another way."""
    if (perturb or of_items) and (others := [task for task in tasks if task in TASKS]):
        raise UsageError(
            f"{others[0]} has no items to perturb, to look for or to spread a model for",
            "ask for tasks of items, such as cloze",
        )
    changes_named(perturb)
    if perturb and (whole := [task for task, one in definitions.items() if one.kind == "rolling"]):
        raise UsageError(
            f"{whole[0]} scores whole texts: changed ones are other texts",
            "perturb tasks that ask something, such as cloze",
        )


def stamped(task: str, step: int, result: dict[str, Any], started: float) -> dict[str, Any]:
    """A result with what every one of them says."""
    return {
        "format": "seedbed-eval",
        "version": 1,
        "task": task,
        "step": step,
        "time": time.time(),
        **result,
        "seconds": time.monotonic() - started,
        "seedbed_version": seedbed.__version__,
    }


def definition_of(task: str) -> TaskDefinition:
    """Of a task file; UsageError where there is none of that name."""
    if is_task_file(task) or task in task_names():
        return load_task(task)
    known = [*TASKS, *task_names()]
    hint = did_you_mean(task, known, f"the tasks are: {', '.join(known)}; or a .toml file")
    raise UsageError(f"there is no task {task!r}", hint)


def _texts_of(checkpoint: LoadedModel, task: TaskDefinition) -> Path | None:
    """Where the held-out texts are that a task wants."""
    return own_dataset(checkpoint) if task.items.build and task.items.texts == "holdout" else None


def write_result(
    run_dir: Path, task: str, result: dict[str, Any], scores: ItemScores | None, *, is_own: bool
) -> Path:
    """RUN/evals/TASK-step-N.json; a result on other items carries the start of their digest as well. The
    scores of items go to a file of the same name that ends in .items.jsonl."""
    folder = run_dir / "evals"
    folder.mkdir(exist_ok=True)
    suffix = "" if is_own else f"-{result['items'][:8]}"
    path = folder / f"{task}-step-{result['step']}{suffix}.json"
    before = read_json(path)
    if before.get("items") == result["items"]:
        # They are of the same bytes, and took longer than the score: a second look must not lose them.
        kept = ("baselines", "robustness", "contamination", "distribution")
        result |= {name: before[name] for name in kept if before.get(name) and not result.get(name)}
    if scores is not None:
        result["scores"] = path.with_suffix(".items.jsonl").name
        write_scores(path.with_suffix(".items.jsonl"), scores)
    write_json(path, result)
    return path


def _bits_per_byte(checkpoint: LoadedModel, options: Options) -> Told:
    model = checkpoint.decoder().to(options.device).eval()
    tokenizer = load_tokenizer(checkpoint.tokenizer_path)
    item_set = load_items(options.data or own_dataset(checkpoint), tokenizer)
    context = checkpoint.config.model.context
    batch_size = options.batch_size or _fitting_batch(context, checkpoint.config.model.vocab_size)
    with Progress("score", sum(len(item.tokens) for item in item_set.items), " tokens") as bar:
        scores = score_documents(
            model,
            item_set.items,
            context=context,
            end_of_text_id=tokenizer.end_of_text_id,
            stride=options.stride,
            batch_size=batch_size,
            device=options.device,
            on_tokens=bar.advance,
        )
    rows = [
        {
            "item": f"{number}:{one.id}",
            "cluster": one.id,
            "source": one.source,
            "nats": one.bits * math.log(2),
            "utf8_bytes": one.utf8_bytes,
            "tokens": one.tokens,
        }
        for number, one in enumerate(scores)
    ]
    told = {
        **estimate_as_json(bits_per_byte(scores)),
        "metric": "bits_per_byte",
        "unit": "bits per byte",
        "documents": len(scores),
        "utf8_bytes": sum(score.utf8_bytes for score in scores),
        "tokens": sum(score.tokens for score in scores),
        "by_source": by_source(scores),
        "items": item_set.digest,
        "data": item_set.origin,
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "method": {
            "context": context,
            "stride": options.stride or max(1, context // 2),
            "batch_size": batch_size,
            "device": options.device,
            "interval": "95 %, ratio over documents",
        },
        "baselines": _baselines(item_set.items, checkpoint, options),
    }
    return told, ItemScores(rows, item_set.digest)


def _fitting_batch(context: int, vocab_size: int) -> int:
    """Windows whose tokens keep all cores busy, and whose logits stay within MAX_LOGITS_BYTES."""
    num_tokens = min(BATCH_TOKENS, MAX_LOGITS_BYTES // (4 * vocab_size))
    return max(1, num_tokens // context)


def own_dataset(checkpoint: LoadedModel) -> Path:
    """The dataset that the checkpoint was trained on, proved by its digest.

    Another build of the same text divides it anew: its held-out documents may be ones that were trained on.
    """
    if paths := checkpoint.config.data.paths:
        raise UsageError(
            "this model was trained on a mixture of datasets: " + ", ".join(paths),
            f"say which to score, without baselines, such as --data {next(iter(paths.values()))}",
        )
    path = checkpoint.dataset_path
    fix = "build it again as it was, or say what to score with --data"
    if not is_dataset(path):
        raise UsageError(f"the dataset of this run is not at {path}", fix)
    if Dataset.open(path).digest != checkpoint.dataset_digest:
        raise DataError(f"{path} is not the dataset that this model was trained on", fix)
    return path


def _baselines(items: Sequence[Item], checkpoint: LoadedModel, options: Options) -> list[dict[str, Any]]:
    """On the scored bytes; those that learn, learn from what the model was trained on."""
    if not options.with_baselines:
        return []
    train = split_texts(own_dataset(checkpoint), "train")
    return baselines([item.text for item in items], train)


def _preferences(checkpoint: LoadedModel, options: Options) -> Told:
    """Of a reward model, on the held-out comparisons of a dataset."""
    data = options.data or own_dataset(checkpoint)
    if not is_dataset(data):
        raise UsageError(f"{data} is not a dataset", "build one with data.format=preference, or ranking")
    scorer = RewardScorer([checkpoint, *options.members], how=options.combine, device=options.device)
    together = {"members": [str(one.path) for one in scorer.members], "combine": options.combine}
    found = preference_scores(scorer, Dataset.open(data))
    return {**found, **(together if options.members else {}), "baselines": []}, None


TASKS: dict[str, Callable[[LoadedModel, Options], Told]] = {
    "bits-per-byte": _bits_per_byte,
    "preferences": _preferences,
}
"""Every task by the name that the command line takes."""
