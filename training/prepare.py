"""From what the user typed to a run directory that workers can start from."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.mixture import MixtureStream
from data.tokenizers import load_tokenizer
from models.sizes import LORA_A, LORA_B
from seedbed.errors import ConfigError, UsageError
from seedbed.files import write_atomic, write_json
from training.asked_tasks import with_asked_tasks
from training.batch_layout import batch_layout
from training.checkpoint import remote_copy
from training.checkpoint.layout import abandon_after, list_steps, resolve, step_dir
from training.checkpoint.reader import Checkpoint
from training.config import Config, config_hash, differences, identity_of, kind_of
from training.datasets import (
    digest,
    epochs,
    holdout_stream,
    open_datasets,
    packing_rates,
    repetition_warnings,
    resolve_data,
    training_stream,
)
from training.devices import device_at_hand, resolve_hardware
from training.first_weights import (
    begun_from,
    check_shapes,
    check_state,
    other_settings,
    sound_checkpoint,
)
from training.layout_search import Machines
from training.metrics import read_events
from training.named_checkpoints import named_checkpoints
from training.plan import make_plan, notices
from training.recipes import Tables, load_config, make_config, merge, parse_overrides, to_toml
from training.run_directory import BEFORE_CONFIG, INIT_FROM, RunDirectory, check_identity, is_run, make_record
from training.tasks import filled_in, make_task, objective_of
from training.tasks.vocabulary import NUM_SENTINELS
from training.trainable import trained_names


def start(
    recipe: str,
    assignments: Sequence[str],
    run_path: Path,
    init_from: Path | None = None,
    branch_from: Path | None = None,
) -> tuple[RunDirectory, list[str]]:
    """A run directory for `recipe`, new or (when it holds the same run) continued, and notices to print.

    It begins from the weights of `init_from`, or from all of `branch_from`, as `fork` does. The data set is
    built when it is missing. Raises ConfigError, UsageError or DataError.
    """
    asked = load_config(recipe, assignments)
    if init_from:
        asked = begun_from(asked, init_from)
    batch_layout(asked)
    objective_of(asked)
    config, dataset = _with_data(with_asked_tasks(resolve_hardware(asked)))
    trained_names(config.model, config.optimizer.trained)
    run = RunDirectory(run_path)
    source, fresh = sound_checkpoint(init_from, config) if init_from else (None, [])
    if source:
        dataset["init_from.hash"] = source.hash()
    origin = _branch_point(branch_from, asked) if branch_from else None
    if origin:
        dataset["branch_from.hash"] = origin[1].hash()
    recipe_config = load_config(recipe)
    difference = {name: list(pair) for name, pair in differences(recipe_config, asked).items()}
    record = make_record(config, recipe, list(assignments), difference, dataset)
    if source:
        record["init_from"] = {"checkpoint": str(source.path), "step": source.step, "fresh": fresh}
    if config.checkpoint.copy_to:
        known = run.record().get("id", "") if run.config_path.is_file() else record["id"]
        remote_copy.check(config.checkpoint.copy_to, known)
    if run.config_path.is_file():
        _check_origin(run, record["identity"])
        check_identity(run, record["identity"])
        return run, _continue(run, config)
    if origin:
        step = origin[1].step
        if config.run.steps <= step:
            raise ConfigError(
                f"{origin[1].path} is at step {step} of {config.run.steps}: nothing is left to train",
                "branch off from an earlier step, or raise run.steps",
            )
        return _branched(*origin, config, record, run_path)
    _refuse_used(run_path)
    plan = planned(config, run_path)
    if source:
        _link_tree(source.path, run_path / INIT_FROM / source.path.name)
    run.create(config, record, plan)
    told = notices(plan)
    if source and (others := other_settings(source, config)):
        told.append(f"the weights of {source.path} were trained otherwise: {'; '.join(others)}")
    adapters = [name for name in fresh if name.endswith((LORA_A, LORA_B))]
    if adapters:
        told.append(f"{len(adapters) // 2} layers begin with an adapter each")
    if source and (heads := sorted({*fresh} - {*adapters})):
        told.append(f"{source.path} has another head; begun afresh: {', '.join(heads)}")
    return run, told


def _check_origin(run: RunDirectory, identity: dict[str, Any]) -> None:
    """Raises ConfigError when the run began as a branch, and not as the one that is asked for now."""
    before, now = (found.get("branch_from.hash") for found in (run.record().get("identity", {}), identity))
    if before != now:
        how = "is a branch of another checkpoint" if before and now else "began as a branch"
        raise ConfigError(
            f"{run.path} {how if before else 'did not begin as a branch'}",
            f"say --branch-from as when it began, or go on with it: seedbed train --resume {run.path}",
        )


def resume(
    run_path: Path, assignments: Sequence[str], from_step: int | None = None
) -> tuple[RunDirectory, list[str]]:
    """Continue a run with schedule and placement fields changed by `assignments`.

    `from_step` goes back to that step: later checkpoints are kept under another name, for a while.
    Raises ConfigError naming each identity field that was to be changed.
    """
    run = RunDirectory.existing(run_path)
    if from_step is not None:
        # Before anything is put aside: going back to a damaged step would lose the sound ones after it.
        Checkpoint.open(step_dir(run_path, from_step)).verify()
    old = run.config()
    config = with_asked_tasks(resolve_hardware(_override(old, assignments, run)))
    batch_layout(config)
    changed = [
        f"{name}: {before!r} in the run, {after!r} asked"
        for name, (before, after) in differences(old, config).items()
        if kind_of(*name.split(".", 1)) == "identity"
    ]
    if changed:
        raise ConfigError(
            "these settings are part of what the run is, and cannot change on resume: " + "; ".join(changed),
            f"to branch off with them: seedbed train --resume {run_path} --fork NEW_DIR --set ...",
        )
    config, dataset = _with_data(config, rebuild=True)
    # Somebody may have edited config.toml; a field that the run was made without is at what it meant then.
    recorded = run.record()["identity"]
    now = {name: value for name, value in identity_of(config).items() if name in recorded}
    check_identity(run, {**recorded, **now, **dataset})
    told = _continue(run, config)
    if from_step is not None:
        attempt = sum(event["kind"] == "attempt_launched" for event in read_events(run.path))
        abandoned = abandon_after(run.path, from_step, attempt)
        told.append(f"going back to step {from_step}; later steps put aside: {abandoned or 'none'}")
        run.event("went_back", told[-1], step=from_step, abandoned=abandoned)
    return run, told


def fork(run_path: Path, new_path: Path, assignments: Sequence[str]) -> tuple[RunDirectory, list[str]]:
    """A new run that begins from the newest checkpoint of another.

    Any field may differ that needs no state which the other did not keep.
    `run_path` may be a run directory or one of its steps. Raises ConfigError before anything is made.
    """
    parent = _run_of(resolve(run_path))
    # A branch has no part in its parent's copy elsewhere.
    settings = ['checkpoint.copy_to=""', *assignments]
    asked = with_asked_tasks(resolve_hardware(_override(parent.config(), settings, parent)))
    batch_layout(asked)
    parent, checkpoint = _branch_point(run_path, asked)
    config, dataset = _with_data(asked, rebuild=True)
    difference = {name: list(pair) for name, pair in differences(parent.config(), config).items()}
    record = make_record(config, parent.record().get("recipe", ""), list(assignments), difference, dataset)
    return _branched(parent, checkpoint, config, record, new_path)


def _run_of(step_path: Path) -> RunDirectory:
    return RunDirectory.existing(step_path.resolve().parent.parent)


def _branch_point(run_path: Path, asked: Config) -> tuple[RunDirectory, Checkpoint]:
    """The run and the checkpoint, verified, that a run of configuration `asked` branches off from."""
    step_path = resolve(run_path)
    parent, checkpoint = _run_of(step_path), Checkpoint.open(step_path)
    checkpoint.verify()
    check_state(checkpoint, parent.config(), asked)
    return parent, checkpoint


def _branched(
    parent: RunDirectory, checkpoint: Checkpoint, config: Config, record: dict[str, Any], new_path: Path
) -> tuple[RunDirectory, list[str]]:
    """The new run of a branch, whose first checkpoint is its parent's."""
    _check_same_data(parent, config, record["identity"])
    check_shapes(checkpoint, config)
    if config.model.context != parent.config().model.context:
        raise ConfigError(
            f"model.context cannot change in a branch ({parent.config().model.context} in {parent.path}): "
            "the data position counts windows of that length",
            f"leave it, or start with the weights alone: --init-from {checkpoint.path}",
        )
    _discard_half_made(new_path, checkpoint)
    _refuse_used(new_path)
    origin = {"run": str(parent.path.resolve()), "step": checkpoint.step, "hash": checkpoint.hash()}
    plan = planned(config, new_path)
    new = RunDirectory(new_path)
    _link_tree(checkpoint.path, step_dir(new.path, checkpoint.step))
    if passed_over := parent.passed_over():
        new.pass_over(passed_over)
    new.create(config, {**record, "forked_from": origin}, plan)
    new.event("forked", f"forked from step {checkpoint.step} of {parent.path}", step=checkpoint.step)
    return new, notices(plan)


def _discard_half_made(path: Path, checkpoint: Checkpoint) -> None:
    """Remove what the same branch left when it was killed while it began: the checkpoint, and no run yet."""
    linked = step_dir(path, checkpoint.step)
    is_half_made = not is_run(path) and list_steps(path) == [checkpoint.step]
    if is_half_made and Checkpoint.open(linked).hash() == checkpoint.hash():
        shutil.rmtree(linked)


def _refuse_used(path: Path) -> None:
    """Raises UsageError when a new run at `path` would mix with something else.

    A `checkpoints` folder without steps may be there already: a mount, or a link to a larger disk. So may
    what a start that was killed left before `config.toml`, which makes a run.
    """
    used = {entry.name for entry in path.iterdir()} if path.exists() else set()
    if list_steps(path) or used - {"run.lock", "checkpoints", *BEFORE_CONFIG}:
        raise UsageError(f"{path} is not empty and not a run directory", "choose another --run-dir")


def _override(config: Config, assignments: Sequence[str], run: RunDirectory) -> Config:
    tables: Tables = config.model_dump(mode="json")
    overrides = parse_overrides(assignments)
    if overrides.get("data", {}).keys() - {"path"}:
        # Other data is asked for than what the path holds: it is built, and identified, anew.
        tables["data"]["path"] = ""
    if "path" in overrides.get("data", {}):
        tables["data"]["paths"] = {}
    return make_config(merge(tables, overrides), str(run.config_path))


def _with_data(config: Config, *, rebuild: bool = False) -> tuple[Config, dict[str, Any]]:
    """The configuration with its data set and vocabulary filled in, and what identifies the data.

    `rebuild` lets a data set that has vanished from the cache be built again.
    """
    data = resolve_data(config.data, rebuild=rebuild)
    datasets = open_datasets(data)
    identity = {
        "data.digest": digest(datasets),
        "data.tokenizer_fingerprint": next(iter(datasets.values())).tokenizer_fingerprint,
    }
    config, hashes = named_checkpoints(config, next(iter(datasets.values())))
    identity |= hashes
    return config.model_copy(update={"data": data, "model": filled_in(config, datasets)}), identity


def planned(config: Config, run_path: Path) -> dict[str, Any]:
    """The plan of a configuration whose data is there: with how it will be read."""
    plan = make_plan(config, run_path, machines=machines_at_hand(config))
    return {**plan, "data": data_plan(config, plan)}


def data_plan(config: Config, plan: dict[str, Any]) -> dict[str, Any]:
    """How the data will be read."""
    datasets = open_datasets(config.data)
    task = make_task(config, datasets)
    stream = training_stream(task, datasets, config)
    num_samples = config.run.steps * plan["batch"]["samples_per_step"]
    return {
        "epochs": epochs(stream, num_samples),
        "packing": packing_rates(stream),
        "shares": [
            {"from_position": stage.start, **dict(zip(stream.names, stage.shares, strict=True))}
            for stage in stream.shares
        ]
        if isinstance(stream, MixtureStream)
        else None,
        "warnings": [
            *task.notices(),
            *repetition_warnings(stream, num_samples),
            *holdout_stream(task, datasets, config)[1],
        ],
    }


def machines_at_hand(config: Config) -> Machines | None:
    """This machine, to plan with; None when its figures are unknown."""
    device = device_at_hand(config)
    return Machines(device, device.devices_per_node) if device else None


def sized(config: Config) -> Config:
    """`config` with the sizes that its data will decide, without building anything.

    Labels of data that are not built yet are counted as two.
    """
    objective = objective_of(config)
    if config.data.path or config.data.paths:
        model = filled_in(config, open_datasets(config.data))
    elif config.model.vocab_size:
        model = config.model
    else:
        asked = config.data.tokenizer
        vocab_size = load_tokenizer(Path(asked)).vocab_size if asked else config.data.vocab_size
        extra = NUM_SENTINELS if objective == "span_corruption" else 0
        model = config.model.model_copy(update={"vocab_size": vocab_size + extra})
    if getattr(model, "num_labels", None) == 0:
        model = model.model_copy(update={"num_labels": 2})
    return config.model_copy(update={"model": model})


def _continue(run: RunDirectory, config: Config) -> list[str]:
    """Record what changed since the run was last started, and take it on."""
    changes = differences(run.config(), config)
    # Raises for what cannot be, before anything says otherwise.
    plan = planned(config, run.path) if changes else None
    run.begin_session()
    told = []
    if plan:
        text = ", ".join(f"{name} {before!r} -> {after!r}" for name, (before, after) in changes.items())
        run.event(
            "resumed", f"resumed with {text}", changes={name: list(pair) for name, pair in changes.items()}
        )
        record = {**run.record(), "config_hash": config_hash(config)}
        write_json(run.plan_path, plan)
        write_json(run.path / "recipe.json", record)
        write_atomic(run.config_path, to_toml(config))
        told.append(f"changed on resume: {text}")
    else:
        run.event("resumed", "resumed with the same configuration")
    steps = list_steps(run.path)
    if steps and steps[-1] >= config.run.steps:
        told.append(f"the run is already at step {steps[-1]} of {config.run.steps}; raise run.steps to go on")
    return told


def _check_same_data(parent: RunDirectory, config: Config, dataset: dict[str, Any]) -> None:
    """Raises ConfigError when a branch that asks for the data of its parent would get other data."""
    before = parent.record()["identity"].get("data.digest")
    # The path is filled in, and differs when the same dataset was built again elsewhere.
    asked = {**config.data.model_dump(), "path": ""} != {**parent.config().data.model_dump(), "path": ""}
    moved = config.data.path != parent.config().data.path
    if dataset["data.digest"] != before and not asked and not moved:
        raise ConfigError(
            f"the dataset at {config.data.path} is not the one that {parent.path} was trained on",
            "build it again as it was, or give other data with --set data.path=...",
        )


def _link_tree(source: Path, target: Path) -> None:
    """A copy of a finished checkpoint that appears whole, sharing its bytes where the disk allows."""
    temporary = target.with_name(f"{target.name}.tmp-0")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, temporary, copy_function=_link_or_copy)
    temporary.rename(target)


def _link_or_copy(source: str, target: str) -> str:
    try:
        os.link(source, target)
        return target
    except OSError:
        return str(shutil.copy2(source, target))
