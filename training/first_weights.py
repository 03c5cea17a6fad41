"""What a run may begin from: checkpoints that are sound, and fit its model, its tokens and its labels."""

from pathlib import Path

from data.shards import Dataset
from data.tokenizers import find_tokenizer
from models.families import is_head, parameter_shapes
from models.sizes import LORA_A, LORA_B
from seedbed.errors import ConfigError
from training.checkpoint.layout import LABELS, resolve
from training.checkpoint.reader import Checkpoint
from training.config import Config, differences, items
from training.datasets import open_datasets
from training.objectives.preference import WITH_REFERENCE
from training.optimizers import state_names
from training.recipes import make_config, parse_toml
from training.rl.settings import ALGORITHMS
from training.tasks import make_task
from training.trainable import trained_names

FREE_OF_WEIGHTS = (
    "head",
    "lora_rank",
    "lora_dropout",
    "lora_layers",
    "lora_base",
    "num_labels",
    "initialization",
    "dropout",
    "drop_path",
    "attention_dropout",
    "head_dropout",
)
"""Settings of a model that may differ from those its first weights were trained with."""


def verified(step: Path) -> Checkpoint:
    """The checkpoint of a step directory, every byte of which was hashed."""
    checkpoint = Checkpoint.open(step)
    checkpoint.verify()
    return checkpoint


def begun_from(config: Config, init_from: Path) -> Config:
    """`config` with what follows from the weights it begins with, where it does not say otherwise.

    Examples are encoded with the checkpoint's tokenizer, and it is the reference of a method that needs one.
    """
    step = resolve(init_from).absolute()
    data, objective = config.data, config.objective
    if data.holds_examples and not (data.path or data.paths or data.tokenizer):
        data = data.model_copy(update={"tokenizer": str(find_tokenizer(step))})
    if objective.name in WITH_REFERENCE and not objective.reference:
        objective = objective.model_copy(update={"reference": str(step)})
    rl = config.rl
    if objective.name in ALGORITHMS and not rl.reference:
        rl = rl.model_copy(update={"reference": str(step)})
    return config.model_copy(update={"data": data, "objective": objective, "rl": rl})


def sound_checkpoint(path: Path, config: Config) -> tuple[Checkpoint, list[str]]:
    """A checkpoint that was verified and fits the model but for its head, and what it has no weights of."""
    checkpoint = verified(resolve(path).resolve())
    datasets = open_datasets(config.data)
    check_tokenizer(checkpoint, next(iter(datasets.values())))
    fresh = set(check_shapes(checkpoint, config, other_head=True))
    labels = make_task(config, datasets).attachments().get(LABELS)
    if labels and labels != (checkpoint.read_file(LABELS) if checkpoint.has_file(LABELS) else b""):
        # A classifier of other labels: its rows mean something else, though there be as many.
        fresh |= {name for name in parameter_shapes(config.model) if name.startswith("classifier.")}
    return checkpoint, sorted(fresh)


def other_settings(checkpoint: Checkpoint, config: Config) -> list[str]:
    """What the weights of a checkpoint were trained with and will now be read with, where it differs."""
    text = checkpoint.read_file("config.toml").decode()
    before = make_config(parse_toml(text, "config.toml"), str(checkpoint.path)).model.model_dump()
    after = config.model.model_dump()
    if not before.get("lora_rank"):
        before.pop("lora_alpha", None)
    return [
        f"model.{name} was {before[name]!r}, is {after[name]!r}"
        for name in before
        if name in after and before[name] != after[name] and name not in FREE_OF_WEIGHTS
    ]


def check_tokenizer(checkpoint: Checkpoint, dataset: Dataset) -> None:
    """Raises ConfigError unless the checkpoint's tokens are those of the data."""
    if checkpoint.manifest["tokenizer_fingerprint"] != dataset.tokenizer_fingerprint:
        raise ConfigError(
            f"{checkpoint.path} was trained with another tokenizer than that of {dataset.location}: its ids "
            "mean other text",
            "train on data made with that tokenizer: --set data.path=... of the same data, or "
            f"--set data.tokenizer={find_tokenizer(checkpoint.path)}",
        )


def check_shapes(checkpoint: Checkpoint, config: Config, *, other_head: bool = False) -> list[str]:
    """Raises ConfigError when the stored weights are not those of `config.model`.

    With `other_head`, heads may differ and adapters be new; returns the parameters that the checkpoint has
    no values for.
    """
    expected = {name: list(shape) for name, shape in parameter_shapes(config.model).items()}
    stored = {
        name.removeprefix("model/"): checkpoint.manifest["tensors"][name]["shape"]
        for name in checkpoint.names("model/")
    }
    differing = [name for name in sorted({*expected, *stored}) if expected.get(name) != stored.get(name)]
    for name in differing:
        is_new = name in expected and name not in stored and name.endswith((LORA_A, LORA_B))
        if not (other_head and (is_head(config.model, name) or is_new)):
            if name.endswith((LORA_A, LORA_B)) and not getattr(config.model, "lora_rank", 0):
                raise ConfigError(
                    f"{checkpoint.path} has adapters, and the model that is asked for has none",
                    "merge them first: seedbed export CHECKPOINT FOLDER, then seedbed import FOLDER NEW_DIR",
                )
            raise ConfigError(
                f"{checkpoint.path} does not fit [model]: 'model/{name}' has shape "
                f"{stored.get(name, 'none')} in the checkpoint and {expected.get(name, 'none')} in the model",
                "use the [model] settings that the checkpoint was trained with",
            )
    return [name for name in differing if name in expected]


def check_state(checkpoint: Checkpoint, before: Config, config: Config) -> None:
    """Raises ConfigError when training with `config` goes on from state that the checkpoint does not hold.

    `before` is what it was trained with. State that is no longer needed is no reason.
    """
    tensors = checkpoint.manifest["tensors"]
    learning = trained_names(config.model, config.optimizer.trained)
    num_dims = {
        name.removeprefix("model/"): len(tensors[name]["shape"])
        for name in checkpoint.names("model/")
        if name.removeprefix("model/") in learning
    }
    lacking: list[str] = []
    if not state_names(num_dims, config.optimizer) <= tensors.keys():
        deciding = ("optimizer.name", "optimizer.momentum", "optimizer.trained")
        changed = differences(before, config)
        lacking += [name for name in deciding if name in changed] or deciding[:1]
    if config.optimizer.ema_decay and not checkpoint.names("ema/"):
        lacking.append("optimizer.ema_decay")
    if config.engine.precision == "fp16" and not checkpoint.names("optimizer/loss_scale"):
        lacking.append("engine.precision")
    if config.objective.name in ALGORITHMS:
        critic = ALGORITHMS[config.objective.name].has_critic
        if not checkpoint.names("rl/") or (critic and not checkpoint.names("critic/")):
            lacking.append("objective.name")
        elif checkpoint.names("rollouts/"):
            # In the middle of an iteration, which is cut up as it was begun.
            cut = ("rl.prompts", "rl.answers", "rl.epochs", "batch.tokens_per_step")
            lacking += [name for name in cut if name in differences(before, config)]
    if lacking:
        values = dict(items(config))
        raise ConfigError(
            f"{checkpoint.path} does not hold the state that training would go on from with "
            + ", ".join(f"{name} = {values[name]!r}" for name in lacking),
            f"leave these as they were, or start with the weights alone: --init-from {checkpoint.path}",
        )
