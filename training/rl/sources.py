"""Where rewards come from: rules, tests, functions, reward models, a language model as judge."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from training.rewards.python_checker import check
from training.rewards.scoring import RewardScorer
from training.rl.functions import FunctionReward
from training.rl.llm_judge import LlmJudge, Pair, judge_config
from training.rl.outcomes import Reward, reward_of
from training.rl.rollouts import Rollout
from training.rl.rules import accuracy, format_of, parses, tests_of, unit_tests
from training.rl.sandbox import Limits
from training.rl.settings import JUDGE, MODEL, RlConfig

SANDBOXES = 2
"""At once, on each rank."""


class Judged(NamedTuple):
    """An answer, and what its prompt's example says."""

    rollout: Rollout
    text: str
    """Without the token that ends it."""
    prompt: str
    response: str


class Source(Protocol):
    """One or more of `rl.rewards`."""

    def rewards(self, judged: Sequence[Judged]) -> list[Reward]:
        """One for each answer; its parts are named as in `rl.rewards`."""

    def close(self) -> None: ...


class Rule:
    """A function of an answer that is quick and cannot fail."""

    def __init__(self, name: str, of: Callable[[Judged], float]) -> None:
        self.name, self._of = name, of

    def rewards(self, judged: Sequence[Judged]) -> list[Reward]:
        return [Reward({self.name: self._of(one)}) for one in judged]

    def close(self) -> None:
        pass


RULES: dict[str, Callable[[Judged], float]] = {
    "accuracy": lambda one: accuracy(one.text, one.response),
    "format": lambda one: format_of(one.text),
    "parses": lambda one: parses(one.text),
    "python": lambda one: check(one.prompt, one.text, one.response, ended=one.rollout.ended).score,
}


class Tests:
    """The share of the asserts of an example's response that an answer passes, each in a sandbox."""

    def __init__(self, timeout_s: float) -> None:
        self._limits = Limits(seconds=timeout_s)

    def rewards(self, judged: Sequence[Judged]) -> list[Reward]:
        with ThreadPoolExecutor(SANDBOXES) as threads:
            return list(threads.map(self._of, judged))

    def _of(self, one: Judged) -> Reward:
        source, tests = tests_of(one.prompt, one.text, one.response)
        if not tests:
            return Reward(failure="malformed", detail=f"no assert in the response {one.response[:80]!r}")
        found = unit_tests(source, tests, self._limits)
        return _named("tests", found)

    def close(self) -> None:
        pass


class Function:
    """See `FunctionReward`."""

    def __init__(self, name: str, timeout_s: float) -> None:
        self.name, self._function = name, FunctionReward(name, timeout_s)

    def rewards(self, judged: Sequence[Judged]) -> list[Reward]:
        rows = [{"prompt": one.prompt, "response": one.response} for one in judged]
        found = self._function.rewards([one.prompt for one in judged], [one.text for one in judged], rows)
        return [_named(self.name, reward) for reward in found]

    def close(self) -> None:
        self._function.__exit__()


class Models:
    """All reward models, as one ensemble: the part "model"."""

    def __init__(self, paths: Sequence[Path], how: str, device: str) -> None:
        self.scorer = RewardScorer(paths, how=how, device=device)

    def rewards(self, judged: Sequence[Judged]) -> list[Reward]:
        read = [np.array([*one.rollout.prompt, *one.rollout.answer], dtype=np.int64) for one in judged]
        scores_MN = self.scorer.by_member(read)
        apart_N = scores_MN.std(axis=0).tolist() if len(scores_MN) > 1 else [None] * len(judged)
        return [
            replace(reward_of("model", score), deviation=apart)
            for score, apart in zip(self.scorer.together(scores_MN).tolist(), apart_N, strict=True)
        ]

    def close(self) -> None:
        pass


class LanguageModel:
    """Whether a judge finds an answer better than the example's response: 1, 0, or 0.5 where it does not say.

    What it said is kept in `folder`, a file for each rank, and not asked again.
    """

    def __init__(self, name: str, folder: Path, rank: int) -> None:
        self.name = name
        folder.mkdir(parents=True, exist_ok=True)
        config = judge_config(Path(name.removeprefix(JUDGE)))
        self._judge = LlmJudge(config, folder / f"rank-{rank}.jsonl", sorted(folder.glob("rank-*.jsonl")))

    def rewards(self, judged: Sequence[Judged]) -> list[Reward]:
        worth = {"first": 1.0, "second": 0.0, "tie": 0.5}
        verdicts = self._judge.verdicts([Pair(one.prompt, one.text, one.response) for one in judged])
        return [
            Reward(failure=verdict.failure, detail=verdict.detail)
            if verdict.choice is None
            else Reward({self.name: worth[verdict.choice]})
            for verdict in verdicts
        ]

    def close(self) -> None:
        pass


def sources(settings: RlConfig, device: str, folder: Path, rank: int) -> list[Source]:
    """Those of `rl.rewards`, in their order, reward models last. `folder` is where judges' verdicts stay."""
    found: list[Source] = []
    for name in settings.rewards:
        if name in RULES:
            found.append(Rule(name, RULES[name]))
        elif name == "tests":
            found.append(Tests(settings.reward_timeout_s))
        elif name.startswith(JUDGE):
            found.append(LanguageModel(name, folder, rank))
        elif not name.startswith(MODEL):
            found.append(Function(name, settings.reward_timeout_s))
    if paths := [Path(name.removeprefix(MODEL)) for name in settings.rewards if name.startswith(MODEL)]:
        found.append(Models(paths, settings.combine, device))
    return found


def part_of(name: str) -> str:
    """How one of `rl.rewards` is called among the parts: all reward models are one."""
    return "model" if name.startswith(MODEL) else name


def _named(name: str, reward: Reward) -> Reward:
    return reward if reward.failure else replace(reward, parts={name: next(iter(reward.parts.values()))})
