"""What a policy answered: tokens in, tokens out, and never read anew from their text.

A rollout says with which weights it was made, how likely each token was to who sampled it, and what it got. A
file of them can be played again: updates from it are those of the run that wrote it.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.generation import Completion
from seedbed.errors import DataError
from seedbed.files import canonical_json, write_atomic
from training.rl.outcomes import Reward

VERSION = 1


@dataclass(frozen=True)
class Rollout:
    """One answer to one prompt."""

    number: int
    """Of the prompt, in the order of the run."""
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    """The token that ends it is part of it."""
    log_probs: tuple[float, ...]
    """Of each token of the answer, by the generator."""
    policy: str
    """Hash of the weights that it was sampled from."""
    ended: bool
    """By itself, and not by a limit of length."""
    reward: Reward | None = None

    @classmethod
    def of(cls, number: int, prompt: Sequence[int], completion: Completion, policy: str) -> "Rollout":
        return cls(
            number,
            tuple(prompt),
            tuple(completion.tokens),
            tuple(completion.log_probs),
            policy,
            completion.finish == "stop",
        )

    def with_reward(self, reward: Reward) -> "Rollout":
        return replace(self, reward=reward)


class RolloutTensors(NamedTuple):
    """Rollouts on a device, padded on the right; B of them, T columns, each for the token after it."""

    tokens: Tensor
    """[B, T + 1] int64: prompt, answer, padding."""
    mask: Tensor
    """[B, T] bool."""
    log_probs: Tensor
    """[B, T] float32, by the generator; 0 where there is no answer."""


def tensors_of(rollouts: Sequence[Rollout], padding: int) -> RolloutTensors:
    """`padding` may be any token, the one that ends texts too: what is not masked is read by nothing."""
    longest = max(len(one.prompt) + len(one.answer) for one in rollouts)
    tokens = torch.full((len(rollouts), longest), padding, dtype=torch.int64)
    mask = torch.zeros(len(rollouts), longest - 1, dtype=torch.bool)
    log_probs = torch.zeros(len(rollouts), longest - 1)
    for row, one in enumerate(rollouts):
        begin, end = len(one.prompt), len(one.prompt) + len(one.answer)
        tokens[row, :end] = torch.tensor([*one.prompt, *one.answer])
        mask[row, begin - 1 : end - 1] = True
        log_probs[row, begin - 1 : end - 1] = torch.tensor(one.log_probs)
    return RolloutTensors(tokens, mask, log_probs)


def write_rollouts(path: Path, rollouts: Sequence[Rollout]) -> None:
    """As JSON Lines, whole or not at all; the last line is a digest of the others."""
    lines = [canonical_json({"version": VERSION, **asdict(one)}) for one in rollouts]
    digest = hashlib.sha256(b"\n".join(lines)).hexdigest()
    lines.append(canonical_json({"rollouts": len(rollouts), "sha256": digest}))
    write_atomic(path, b"\n".join(lines).decode() + "\n")


def keep_newest(run: Path, step: int, rollouts: Sequence[Rollout], count: int) -> None:
    """Write what was answered after `step` for reading and replay, and leave `count` such files of a run."""
    folder = run / "rollouts"
    folder.mkdir(exist_ok=True)
    path = folder / f"step-{step:08}.jsonl"
    write_rollouts(path, rollouts)
    files = sorted(folder.glob("step-*.jsonl"))
    place = files.index(path) + 1
    # Those of steps that a run went back over, too.
    for old in [*files[place:], *files[:place][:-count]]:
        old.unlink()


def read_rollouts(path: Path) -> list[Rollout]:
    """DataError for a file that is not whole, or of another version."""
    try:
        *lines, last = path.read_bytes().splitlines()
        told = json.loads(last)
        rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
        is_whole = told == {
            "rollouts": len(lines),
            "sha256": hashlib.sha256(b"\n".join(lines)).hexdigest(),
        }
    except (OSError, ValueError) as error:
        raise DataError(f"{path} holds no rollouts: {error}", "sample them again") from error
    if not is_whole:
        raise DataError(f"{path} does not match its own digest", "sample them again")
    return [_rollout(row, path) for row in rows]


def _rollout(row: dict[str, Any], path: Path) -> Rollout:
    if row.pop("version") != VERSION:
        raise DataError(f"{path} was written by another version", "sample them again")
    return rollout_of(row)


def rollout_of(row: dict[str, Any]) -> Rollout:
    """What `asdict` gave, and JSON brought."""
    reward = row.pop("reward")
    for name in ("prompt", "answer", "log_probs"):
        row[name] = tuple(row[name])
    return Rollout(**row, reward=Reward(**reward) if reward else None)
