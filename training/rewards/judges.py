"""Who says how good an answer is: a checker of Python, or reward models."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from training.rewards.python_checker import Verdict, check
from training.rewards.scoring import RewardScorer


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

    def scores(self, answers: Sequence[Answer]) -> list[float]: ...

    def summary(self) -> dict[str, float]: ...


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
