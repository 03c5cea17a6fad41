"""What answers are worth, as `rl.rewards` says: rules, functions, reward models, and their sum."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.tokenizers import Tokenizer
from training.engines import Group
from training.rewards.python_checker import check
from training.rewards.scoring import RewardScorer
from training.rl.functions import FunctionReward
from training.rl.outcomes import Reward, reward_of, together
from training.rl.rollouts import Rollout
from training.rl.rules import accuracy, format_of, parses
from training.rl.settings import MODEL, RlConfig
from training.rl.workers import BLOCK, Worker, shared_out


class Judged(NamedTuple):
    """An answer, and what its prompt's example says."""

    rollout: Rollout
    prompt: str
    response: str


class Judge(Worker):
    """All rewards of a run; `close` ends the processes of functions."""

    def __init__(
        self, settings: RlConfig, tokenizer: Tokenizer, end_ids: frozenset[int], group: Group
    ) -> None:
        super().__init__(group, BLOCK)
        self.settings, self.tokenizer, self._end_ids = settings, tokenizer, end_ids
        paths = [Path(name.removeprefix(MODEL)) for name in settings.rewards if name.startswith(MODEL)]
        self.models = RewardScorer(paths, how=settings.combine, device=str(group.device)) if paths else None
        self._functions = {
            name: FunctionReward(name, settings.reward_timeout_s)
            for name in settings.rewards
            if ":" in name and not name.startswith(MODEL)
        }
        weights = settings.weights or (1.0,) * len(settings.rewards)
        self._weights = {_part(name): weight for name, weight in zip(settings.rewards, weights, strict=True)}

    def close(self) -> None:
        for function in self._functions.values():
            function.__exit__()

    def rewards(self, judged: Sequence[Judged]) -> list[Reward]:
        """One for each answer; what could not be found out is asked for again, up to `rl.retries` times."""
        found = self._asked(judged)
        for _ in range(self.settings.retries):
            again = [index for index, reward in enumerate(found) if reward.failure]
            if not again:
                break
            for index, reward in zip(again, self._asked([judged[index] for index in again]), strict=True):
                found[index] = reward
        return found

    def _asked(self, judged: Sequence[Judged]) -> list[Reward]:
        # Of a model, numbers depend on the block that they are computed in; nothing else does.
        self.block = BLOCK if self.models else -(-len(judged) // self.group.num_ranks)
        return self._of_block(judged)

    @shared_out
    def _of_block(self, judged: Sequence[Judged]) -> list[Reward]:
        texts = [self.text(one.rollout) for one in judged]
        columns = [self._by_rule(judged, texts), *self._by_function(judged, texts)]
        if self.models:
            columns.append(self._by_model(judged))
        return [together(rewards, self._weights) for rewards in zip(*columns, strict=True)]

    def text(self, rollout: Rollout) -> str:
        """What was answered, without the token that ends it."""
        ended = rollout.ended and rollout.answer[-1] in self._end_ids
        return self.tokenizer.decode(list(rollout.answer[:-1] if ended else rollout.answer))

    def _by_rule(self, judged: Sequence[Judged], texts: Sequence[str]) -> list[Reward]:
        found = []
        for one, text in zip(judged, texts, strict=True):
            parts = {}
            for name in self.settings.rewards:
                if name == "accuracy":
                    parts[name] = accuracy(text, one.response)
                elif name == "format":
                    parts[name] = format_of(text)
                elif name == "parses":
                    parts[name] = parses(text)
                elif name == "python":
                    parts[name] = check(one.prompt, text, one.response, ended=one.rollout.ended).score
            found.append(Reward(parts))
        return found

    def _by_function(self, judged: Sequence[Judged], texts: Sequence[str]) -> list[list[Reward]]:
        prompts = [one.prompt for one in judged]
        rows = [{"prompt": one.prompt, "response": one.response} for one in judged]
        return [
            [_named(_part(name), reward) for reward in function.rewards(prompts, texts, rows)]
            for name, function in self._functions.items()
        ]

    def _by_model(self, judged: Sequence[Judged]) -> list[Reward]:
        assert self.models is not None
        sequences = [np.array([*one.rollout.prompt, *one.rollout.answer], dtype=np.int64) for one in judged]
        return [reward_of(_part(MODEL), float(score)) for score in self.models.score(sequences)]


def _part(name: str) -> str:
    """How a reward is called among the parts: all reward models are one."""
    return "model" if name.startswith(MODEL) else name


def _named(name: str, reward: Reward) -> Reward:
    return reward if reward.failure else replace(reward, parts={name: next(iter(reward.parts.values()))})
