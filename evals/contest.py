"""Whose answers are preferred: checkpoints answer the same prompts, a judge compares them pair by pair.

Of each pair of checkpoints the share of wins, of all of them ratings on Elo's scale, and, where the checker
of Python knows better, how far the judge agrees with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

from data.examples.table import format_of
from data.shards import Dataset
from evals.intervals import clusters_of
from evals.judging import agreement, choice_of, likert, win_rate
from evals.ratings import REFERENCE, Game, rate
from seedbed.errors import DataError, UsageError
from seedbed.progress import Progress
from training.checkpoint.layout import resolve
from training.checkpoint.models import load_model
from training.rewards.comparisons import Sampling, check_judge, sampled
from training.rewards.judges import Answer, Judge, LanguageModel, PythonChecker, RewardModels, Rules
from training.rl.llm_judge import Pair, Verdict

Met = tuple[str, str, Answer, Answer]
"""Two checkpoints, and an answer of each to one prompt."""


def contest(
    runs: Sequence[Path],
    sampling: Sampling,
    judge: Judge | None = None,
    *,
    with_likert: bool = False,
    with_reference: bool = False,
) -> dict[str, Any]:
    """{"runs", "prompts", "win_rates", "ratings", "likert", "agreement"}, all JSON; the checker of Python
    judges without a judge. Prompts are those of the first run's data unless `sampling` names some.
    `with_likert` has a language model rate each answer by itself, too, from 1 to 5; `with_reference` has what
    the data answer take part, as a checkpoint named "reference".

    UsageError for fewer than two that take part, or prompts that the judge knows nothing of. What has no
    verdict is counted, and refused where there is nothing else.
    """
    names = [str(run) for run in runs]
    _check(runs, judge, with_likert=with_likert, with_reference=with_reference)
    loaded = [load_model(run) for run in runs]
    # The same prompts for all, and as much room for each answer.
    context = min(int(one.config.model.context) for one in loaded)
    sampling = replace(sampling, data=sampling.data or str(loaded[0].dataset_path), context=context)
    for one in loaded:
        check_judge(judge, one, context)
    is_python = format_of(Dataset.open(sampling.data)) == "python-functions"
    if judge is None and not is_python:
        raise UsageError(
            f"{sampling.data} does not hold Python functions, which is all that the checker knows",
            "name reward models with --reward, a --judge or a --rule",
        )
    answers = {name: sampled(run, sampling) for name, run in zip(names, runs, strict=True)}
    if with_reference:
        first = answers[names[0]]
        answers[REFERENCE] = [one._replace(text=one.written, ended=True) for one in first]
    met = [
        (first, second, a, b)
        for first, second in combinations(answers, 2)
        for a, b in zip(answers[first], answers[second], strict=True)
    ]
    assert all(a.prompt == b.prompt for _, _, a, b in met)
    verdicts = _verdicts(judge or PythonChecker(), met)
    return {
        "runs": list(answers),
        "prompts": len({one.prompt for one in answers[names[0]]}),
        "comparisons": len(met),
        "win_rates": _win_rates(met, verdicts),
        "ratings": _ratings(met, verdicts),
        "likert": _likert(judge, answers) if with_likert and isinstance(judge, LanguageModel) else None,
        "agreement": _agreement(met, verdicts) if judge and is_python else None,
    }


def _check(runs: Sequence[Path], judge: Judge | None, *, with_likert: bool, with_reference: bool) -> None:
    """Raises UsageError for what makes no contest."""
    different = {resolve(run) for run in runs}
    if len(different) < len(runs) or len(runs) + with_reference < 2:
        raise UsageError(
            f"{len(different)} checkpoint(s) to compare",
            "name two or more, each once, or one and --reference",
        )
    if with_reference and REFERENCE in map(str, runs):
        raise UsageError(f"a run called {REFERENCE} would be taken for the data's answers", "give its path")
    if with_reference and isinstance(judge, RewardModels | Rules):
        raise UsageError(
            "reward models and rules judge what a model sampled, token by token", "leave out --reference"
        )
    if with_likert and not isinstance(judge, LanguageModel):
        raise UsageError("only a language model rates answers from 1 to 5", "name a --judge")


def _verdicts(judge: Judge, met: Sequence[Met]) -> list[Verdict]:
    """Of those who say the same nobody is asked: rounding, or chance, would find one of them better."""
    asked = [number for number, (_, _, a, b) in enumerate(met) if a.text != b.text]
    found = [Verdict("tie")] * len(met)
    if isinstance(judge, LanguageModel):
        pairs = [Pair(met[n][2].prompt, met[n][2].text, met[n][3].text) for n in asked]
        for number, verdict in zip(asked, judge.judge.verdicts(pairs), strict=True):
            found[number] = verdict
        return found
    with Progress("judge", len(asked)) as bar:
        for number in asked:
            scores = judge.scores(met[number][2:])
            verdict = Verdict(choice_of(*scores)) if scores else Verdict(None, failure="unreachable")
            found[number] = verdict
            bar.advance(1)
    return found


def _win_rates(met: Sequence[Met], verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    pairs: dict[tuple[str, str], list[int]] = {}
    for number, (first, second, _, _) in enumerate(met):
        pairs.setdefault((first, second), []).append(number)
    found = []
    for (first, second), numbers in pairs.items():
        try:
            told = win_rate([verdicts[n] for n in numbers], [met[n][2].prompt for n in numbers]).as_json()
        except DataError as error:
            told = {"refused": error.message}
        found.append({"first": first, "second": second, **told})
    return found


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


def _likert(judge: LanguageModel, answers: Mapping[str, Sequence[Answer]]) -> dict[str, Any]:
    """By run: the mean rating and the share of each, of answers that were rated."""
    told: dict[str, Any] = {}
    for name, given in answers.items():
        ratings = judge.judge.ratings([(one.prompt, one.text) for one in given])
        known = [
            (one.prompt, rating) for one, rating in zip(given, ratings, strict=True) if rating is not None
        ]
        told[name] = {"rated": len(known), "failed": len(given) - len(known)}
        if known:
            prompts, numbers = zip(*known, strict=True)
            mean, shares = likert(numbers, clusters_of(prompts))
            rows = {str(rating): one.as_json() for rating, one in shares.items()}
            told[name] |= {"mean": mean.as_json(), "shares": rows}
    return told


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
