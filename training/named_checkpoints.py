"""Checkpoints that settings name: verified, of the data's tokenizer, and identified by their hashes."""

import hashlib
from pathlib import Path

from data.examples.table import is_examples
from data.mixture import check_same_tokenizer
from data.shards import Dataset
from seedbed.errors import ConfigError
from seedbed.files import digest_of
from training.checkpoint.layout import resolve
from training.checkpoint.models import config_of, model_config_of
from training.checkpoint.reader import Checkpoint
from training.config import Config
from training.first_weights import check_tokenizer, verified
from training.rl.llm_judge import judge_config
from training.rl.settings import JUDGE, MODEL

FIELDS = (("objective", "teacher"), ("objective", "reference"), ("rl", "reference"), ("rl", "critic"))


def named_checkpoints(config: Config, dataset: Dataset) -> tuple[Config, dict[str, str]]:
    """`config` with the paths of steps in place of what was named, and "section.field.hash" -> hash."""
    hashes = {}
    for section, field in FIELDS:
        settings = getattr(config, section)
        if named := getattr(settings, field):
            found = _sound(named, dataset)
            if section == "rl":
                _check_role(found, field, config.model.context)
            hashes[f"{section}.{field}.hash"] = found.hash()
            settings = settings.model_copy(update={field: str(found.path)})
            config = config.model_copy(update={section: settings})
    rewards = []
    for number, reward in enumerate(config.rl.rewards):
        rewards.append(_found(reward, dataset, config.model.context))
        if reward.startswith(MODEL):
            path = Path(rewards[-1].removeprefix(MODEL))
            hashes[f"rl.rewards.{number}.hash"] = Checkpoint.open(path).hash()
        elif reward.startswith(JUDGE):
            judge = judge_config(Path(rewards[-1].removeprefix(JUDGE)))
            hashes[f"rl.rewards.{number}.hash"] = digest_of([judge.model, judge.criterion])
        elif (file := rewards[-1].rpartition(":")[0]).endswith(".py"):
            hashes[f"rl.rewards.{number}.hash"] = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    if config.rl.ptx_data:
        text = _text(config.rl.ptx_data, dataset)
        hashes["rl.ptx_data.hash"] = text.digest
    gold = tuple(_found(reward, dataset, config.model.context) for reward in config.rl.gold)
    rl = config.rl.model_copy(update={"rewards": tuple(rewards), "gold": gold})
    if config.rl.ptx_data:
        rl = rl.model_copy(update={"ptx_data": text.location.absolute})
    return config.model_copy(update={"rl": rl}), hashes


def _found(reward: str, dataset: Dataset, context: int) -> str:
    """A reward as workers find it, wherever they are started."""
    if not reward.startswith(MODEL):
        return _placed(reward)
    checkpoint = _sound(reward.removeprefix(MODEL), dataset)
    _require_reward_model(checkpoint)
    if (reads := model_config_of(checkpoint.path).context) < context:
        raise ConfigError(
            f"{checkpoint.path} reads {reads} tokens, and the policy writes up to {context}",
            f"give a reward model with as large a context, or set model.context = {reads}",
        )
    return f"{MODEL}{checkpoint.path}"


def _text(named: str, dataset: Dataset) -> Dataset:
    """The dataset of texts that is named, or that a run which is named was trained on."""
    is_run = (Path(named) / "config.toml").is_file()
    found = Dataset.open(config_of(Path(named)).data.path if is_run else named)
    if is_examples(found):
        raise ConfigError(f"rl.ptx_data: {found.location} holds examples", "give a dataset of texts")
    check_same_tokenizer({"data": dataset, "rl.ptx_data": found})
    return found


def _sound(named: str, dataset: Dataset) -> Checkpoint:
    checkpoint = verified(resolve(Path(named)).absolute())
    check_tokenizer(checkpoint, dataset)
    return checkpoint


def _check_role(checkpoint: Checkpoint, role: str, context: int) -> None:
    """Raises ConfigError for a model that cannot be a policy's critic, or its reference."""
    reads = model_config_of(checkpoint.path).context
    if role == "critic":
        _require_reward_model(checkpoint)
        if reads != context:
            raise ConfigError(
                f"{checkpoint.path} reads {reads} tokens, and a critic learns from the policy's {context}",
                f"give a reward model of model.context = {context}, or leave rl.critic out",
            )
    elif checkpoint.names("model/reward."):
        raise ConfigError(f"rl.reference: {checkpoint.path} is a reward model", "give one that writes text")
    elif reads < context:
        raise ConfigError(
            f"rl.reference: {checkpoint.path} reads {reads} tokens, and the policy writes up to {context}",
            f"set model.context = {reads}, or give another",
        )


def _require_reward_model(checkpoint: Checkpoint) -> None:
    if not checkpoint.names("model/reward."):
        raise ConfigError(
            f"{checkpoint.path} is no reward model",
            'give a run of a decoder that was trained with model.head = "reward"',
        )


def _placed(reward: str) -> str:
    """A reward whose file, if it has one, is named wherever workers are started."""
    if reward.startswith(JUDGE):
        path = Path(reward.removeprefix(JUDGE)).absolute()
        judge_config(path)
        return f"{JUDGE}{path}"
    file, colon, function = reward.rpartition(":")
    if not (colon and file.endswith(".py")):
        return reward
    path = Path(file).absolute()
    if not path.is_file():
        raise ConfigError(
            f'rl.rewards: there is no file {path} for "{reward}"', "name one that is there, FILE.py:function"
        )
    return f"{path}:{function}"
