"""Who says how good an answer is: a checker of Python, rules, reward models, or a language model."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from seedbed.errors import UsageError, did_you_mean
from training.rewards.python_checker import Verdict, check
from training.rewards.scoring import RewardScorer
from training.rl.llm_judge import Choice, LlmJudge, Pair, agreement
from training.rl.llm_judge import Verdict as Preference
from training.rl.rollouts import Rollout
from training.rl.sources import RULES, Judged


class Answer(NamedTuple):
    """A model's answer to a prompt of its dataset."""

    prompt: str
    text: str
    written: str
    """The answer that the dataset has there."""
    tokens: NDArray[np.int64]
    """Prompt and answer as they were given and sampled, the end of text too."""
    ended: bool


class Judge(Protocol):
    """Scores answers, the more the better, and sums up what it saw."""

    def scores(self, answers: Sequence[Answer]) -> list[float] | None:
        """Of the answers to one prompt; None when they could not be found out."""

    def summary(self) -> dict[str, Any]: ...


class PythonChecker:
    """See `python_checker`."""

    def __init__(self) -> None:
        self._verdicts: list[Verdict] = []

    def scores(self, answers: Sequence[Answer]) -> list[float]:
        found = [check(one.prompt, one.text, one.written, ended=one.ended) for one in answers]
        self._verdicts += found
        return [verdict.score for verdict in found]

    def summary(self) -> dict[str, float]:
        count = max(1, len(self._verdicts))
        return {
            "judged": len(self._verdicts),
            "parse": sum(verdict.parses for verdict in self._verdicts) / count,
            "uses_arguments": sum(verdict.uses for verdict in self._verdicts) / count,
            "right_length": sum(verdict.right_length for verdict in self._verdicts) / count,
            "score": sum(verdict.score for verdict in self._verdicts) / count,
        }


class Rules:
    """The sum of rules, by the names that `rl.rewards` has for them."""

    def __init__(self, names: Sequence[str]) -> None:
        """UsageError for one that there is not, or that is named twice."""
        if twice := [name for name in names if names.count(name) > 1]:
            raise UsageError(f"the rule '{twice[0]}' is named twice", "each counts once")
        for name in names:
            if name not in RULES:
                remedy = did_you_mean(name, RULES, f"there are {', '.join(RULES)}", "'{}'")
                raise UsageError(f"there is no rule '{name}'", remedy)
        self._values: dict[str, list[float]] = {name: [] for name in names}

    def scores(self, answers: Sequence[Answer]) -> list[float]:
        judged = [
            Judged(
                Rollout(0, (), tuple(one.tokens.tolist()), (), "", one.ended),
                one.text,
                one.prompt,
                one.written,
            )
            for one in answers
        ]
        columns = {name: [RULES[name](one) for one in judged] for name in self._values}
        for name, column in columns.items():
            self._values[name] += column
        return [sum(values) for values in zip(*columns.values(), strict=True)]

    def summary(self) -> dict[str, Any]:
        judged = len(next(iter(self._values.values())))
        rules = {name: sum(values) / max(1, judged) for name, values in self._values.items()}
        return {"judged": judged, "rules": rules, "score": sum(rules.values())}


class RewardModels:
    """One reward model, or an ensemble: of the tokens that were sampled, never of their text read anew."""

    def __init__(self, scorer: RewardScorer) -> None:
        self.scorer = scorer
        self._scores: list[float] = []

    def scores(self, answers: Sequence[Answer]) -> list[float]:
        found = self.scorer.score([answer.tokens for answer in answers]).tolist()
        self._scores += found
        return found

    def summary(self) -> dict[str, float]:
        scores = self._scores or [0.0]
        judged = len(self._scores)
        return {"judged": judged, "score": float(np.mean(scores)), "deviation": float(np.std(scores))}


class LanguageModel:
    """A model behind an endpoint, which compares each answer with each other to its prompt (Bai et al. 2022,
    RLAIF): a score is the share of its comparisons that an answer wins, a tie half.

    Where the checker of Python knows better, the judge is measured by it.
    """

    def __init__(self, judge: LlmJudge, *, has_gold: bool = False) -> None:
        self.judge, self.has_gold = judge, has_gold
        self._verdicts: list[Preference] = []
        self._gold: list[Choice] = []

    def scores(self, answers: Sequence[Answer]) -> list[float] | None:
        places = list(combinations(range(len(answers)), 2))
        verdicts = self.judge.verdicts(
            [Pair(answers[a].prompt, answers[a].text, answers[b].text) for a, b in places]
        )
        self._verdicts += verdicts
        if self.has_gold:
            gold = [check(one.prompt, one.text, one.written, ended=one.ended).score for one in answers]
            self._gold += [_choice(gold[a], gold[b]) for a, b in places]
        if any(verdict.failure for verdict in verdicts):
            return None
        wins = [0.0] * len(answers)
        for (a, b), verdict in zip(places, verdicts, strict=True):
            wins[a] += {"first": 1.0, "tie": 0.5}.get(str(verdict.choice), 0.0)
            wins[b] += {"second": 1.0, "tie": 0.5}.get(str(verdict.choice), 0.0)
        return [won / max(1, len(answers) - 1) for won in wins]

    def summary(self) -> dict[str, Any]:
        """`judged` comparisons; see `agreement` for the others."""
        known = self._gold if self.has_gold else ["tie"] * len(self._verdicts)
        found = agreement(self._verdicts, known)  # type: ignore[arg-type]
        return {"judged": len(self._verdicts), **found, "usage": asdict(self.judge.usage)}


def _choice(first: float, second: float) -> Choice:
    return "tie" if first == second else "first" if first > second else "second"
