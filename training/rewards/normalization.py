"""A reward model shifted and scaled so that given answers have rewards of mean 0 and variance 1.

Comparisons say nothing of where zero is, nor (but for the temperature) of what a unit is; whatever adds
rewards to something else, such as a penalty for divergence, needs both. As Ziegler et al. 2019 and Stiennon
et al. 2020: gain and bias are found on samples of the initial policy, and folded into the head here, so that
no reader has to know of them.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seedbed.errors import CheckpointError, DataError, UsageError
from training.checkpoint.layout import resolve
from training.checkpoint.models import load_model
from training.checkpoint.reader import Checkpoint
from training.checkpoint.writer import Saver, SaveResult
from training.engines.base import Shard
from training.rewards.scoring import RewardScorer, is_reward_model

# Of the manifest, and of the files: what says what a model is, and not how it was trained.
KEPT = (
    "step",
    "position",
    "attempt",
    "world",
    "config_hash",
    "identity_hash",
    "dataset_digest",
    "tokenizer_fingerprint",
)
ATTACHED = ("config.toml", "tokenizer.json", "tokenizer.model", "labels.json")


def gain_and_bias(rewards_N: NDArray[np.float64]) -> tuple[float, float]:
    """g and b of which g r + b has mean 0 and variance 1; DataError when all rewards are the same."""
    deviation = float(rewards_N.std()) if len(rewards_N) else 0.0
    if not np.isfinite(deviation) or deviation <= 1e-12 * max(1.0, float(np.abs(rewards_N).max(initial=0))):
        raise DataError(
            f"{len(rewards_N)} rewards with a deviation of {deviation:g} cannot be scaled to variance 1",
            "give more answers, and different ones",
        )
    gain = 1 / deviation
    return gain, -gain * float(rewards_N.mean())


def normalize(path: Path, out: Path, sequences: list[NDArray[np.int64]]) -> dict[str, float]:
    """Write the reward model at `path` as OUT/checkpoints/step-N, normalised on these token sequences.

    Returns {"gain", "bias", "mean", "deviation"} of before. UsageError when `out` is in use or `path` is
    none.
    """
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty", "choose another directory")
    loaded = load_model(path)
    if not is_reward_model(loaded):
        raise UsageError(
            f"{path} is no reward model", 'give a run that was trained with model.head = "reward"'
        )
    rewards = RewardScorer([loaded]).by_member(sequences)[0]
    gain, bias = gain_and_bias(rewards)
    head = "reward" if "reward.weight" in dict(loaded.model.named_parameters()) else "classifier"
    checkpoint = Checkpoint.open(resolve(path))
    attachments = {name: checkpoint.read_file(name) for name in ATTACHED if checkpoint.has_file(name)}
    shards = []
    for name, parameter in loaded.model.named_parameters():
        values = parameter.detach().clone()
        if name == f"{head}.weight":
            values *= gain
        elif name == f"{head}.bias":
            values = values * gain + bias
        elif name == f"{head}.log_temperature":
            # Differences are larger by the gain, and mean what they meant.
            values += float(np.log(gain))
        shards.append(Shard(f"model/{name}", values, tuple(values.shape), (0,) * values.dim()))
    failures: list[str] = []

    def done(result: SaveResult) -> None:
        failures.extend([result.error] if result.error else [])

    manifest = {key: checkpoint.manifest[key] for key in KEPT}
    manifest["trainer"] = {"best": None, "normalised": {"gain": gain, "bias": bias}}
    saver = Saver(out, 0, 1, "normalise", attachments, done)
    saver.save(iter(shards), manifest)
    saver.wait()
    if failures:
        raise CheckpointError(
            f"cannot write {out}: {failures[0]}", "make room there, or choose another directory"
        )
    return {"gain": gain, "bias": bias, "mean": float(rewards.mean()), "deviation": float(rewards.std())}
