"""Whose answers are preferred: checkpoints answer the same prompts, a judge compares them pair by pair.

Of each pair of checkpoints the share of wins, of all of them ratings on Elo's scale, and, where the checker
of Python knows better, how far the judge agrees with it.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

from data.examples.table import format_of
from data.shards import Dataset
from evals.intervals import clusters_of
from evals.judging import agreement, choice_of, win_rate
from evals.ratings import Game, rate
from seedbed.errors import DataError, UsageError
from seedbed.progress import Progress
from training.checkpoint.models import load_model
from training.rewards.comparisons import Sampling, sampled
from training.rewards.judges import Answer, Judge, LanguageModel, PythonChecker
from training.rl.llm_judge import Pair, Verdict

Met = tuple[str, str, Answer, Answer]
"""Two checkpoints, and an answer of each to one prompt."""


def contest(runs: Sequence[Path], sampling: Sampling, judge: Judge | None = None) -> dict[str, Any]:
    """{"runs", "prompts", "win_rates", "ratings", "agreement"}, all JSON; the checker of Python judges
    without a judge. Prompts are those of the first run's data unless `sampling` names some.

    UsageError for fewer than two runs, or prompts that the judge knows nothing of; DataError when no pair has
    a verdict.
    """
    names = [str(run) for run in runs]
    if len(set(names)) < 2:
        raise UsageError(f"{len(set(names))} checkpoint(s) to compare", "name two runs or more")
    sampling = replace(sampling, data=sampling.data or str(load_model(runs[0]).dataset_path))
    is_python = format_of(Dataset.open(sampling.data)) == "python-functions"
    if judge is None and not is_python:
        raise UsageError(
            f"{sampling.data} does not hold Python functions, which is all that the checker knows",
            "name reward models with --reward, a --judge or a --rule",
        )
    answers = {name: sampled(run, sampling) for name, run in zip(names, runs, strict=True)}
    met = [
        (first, second, a, b)
        for first, second in combinations(answers, 2)
        for a, b in zip(answers[first], answers[second], strict=True)
    ]
    verdicts = _verdicts(judge or PythonChecker(), met)
    return {
        "runs": names,
        "prompts": len({one.prompt for one in answers[names[0]]}),
        "comparisons": len(met),
        "win_rates": _win_rates(met, verdicts),
        "ratings": _ratings(met, verdicts),
        "agreement": _agreement(met, verdicts) if judge and is_python else None,
    }


def _verdicts(judge: Judge, met: Sequence[Met]) -> list[Verdict]:
    if isinstance(judge, LanguageModel):
        return judge.judge.verdicts([Pair(a.prompt, a.text, b.text) for _, _, a, b in met])
    with Progress("judge", len(met)) as bar:
        found = []
        for _, _, a, b in met:
            scores = judge.scores([a, b])
            found.append(Verdict(choice_of(*scores)) if scores else Verdict(None, failure="unreachable"))
            bar.advance(1)
    return found


def _win_rates(met: Sequence[Met], verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    pairs: dict[tuple[str, str], list[int]] = {}
    for number, (first, second, _, _) in enumerate(met):
        pairs.setdefault((first, second), []).append(number)
    return [
        {
            "first": first,
            "second": second,
            **win_rate([verdicts[n] for n in numbers], [met[n][2].prompt for n in numbers]).as_json(),
        }
        for (first, second), numbers in pairs.items()
    ]


def _ratings(met: Sequence[Met], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """By run, the strongest first; or why there are none."""
    games = [
        Game(first, second, verdict.choice, a.prompt)
        for (first, second, a, _), verdict in zip(met, verdicts, strict=True)
        if verdict.choice
    ]
    try:
        found = rate(games)
    except DataError as error:
        return {"refused": error.message}
    return {name: {"elo": one.value, "low": one.low, "high": one.high} for name, one in found.elo.items()}


def _agreement(met: Sequence[Met], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """With the checker of Python, of the pairs that the judge has a verdict on."""
    known = [(one, verdict.choice) for one, verdict in zip(met, verdicts, strict=True) if verdict.choice]
    gold = _verdicts(PythonChecker(), [one for one, _ in known])
    found = agreement(
        [choice for _, choice in known],
        [str(verdict.choice) for verdict in gold],
        clusters_of([one[2].prompt for one, _ in known]),
    )
    return {
        "share": found.share.as_json(),
        "kappa": found.kappa.as_json(),
        "confusion": found.confusion,
    }
