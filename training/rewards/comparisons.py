"""Rows to train on from a model's own answers: sampled for the prompts of its dataset, scored by a judge.

    preference  the best and the worst answer to a prompt: for a reward model, or DPO
    ranking     all of them
    best        the best one alone, if it is good enough: best-of-n, or rejection sampling (Bai et al. 2022,
                Touvron et al. 2023), for supervised fine-tuning

Sampled with the newest policy, judged and trained on again, round by round, with the rows of earlier rounds:
that is DAgger (Ross et al. 2011). An answer is a function of (weights, prompt, seed, number): the same
command gives the same file.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.examples.table import ExampleTable, format_of
from data.order import Permutation
from data.shards import Dataset
from data.tokenizers import load_tokenizer
from models.generation import Completion, Engine, Request, SamplingOptions
from seedbed.errors import DataError, UsageError
from seedbed.files import write_atomic
from seedbed.progress import Progress
from seedbed.randomness import seed64
from training.checkpoint.models import LoadedModel, load_model
from training.rewards.judges import Answer, Judge, LanguageModel, PythonChecker, RewardModels

FORMS = ("preference", "ranking", "best")
AT_ONCE = 256


@dataclass(frozen=True)
class Sampling:
    """Which prompts are answered, and how."""

    split: str = "train"
    num_prompts: int = 300
    num_answers: int = 3
    temperature: float = 0.8
    seed: int = 0
    data: str = ""
    """A dataset of examples whose prompts are answered; that of the run without."""
    max_new_tokens: int = 0
    """Where an answer is cut; 0: at twice the length of the dataset's own, and 16 more."""
    context: int = 0
    """Tokens of prompt and answer together, if fewer than the model's context."""


def compare(
    run: Path,
    out: Path,
    sampling: Sampling = Sampling(),
    *,
    form: str = "preference",
    judge: Judge | None = None,
    at_least: float | None = None,
) -> dict[str, Any]:
    """Write `out`, JSON Lines of a form above, and return what became of the prompts.

    The prompts must be of a dataset with data.template = "plain"; without a judge, the checker of Python
    scores, and data.format must be "python-functions". Prompts whose answers are all as good, or of
    which none scores `at_least` so much, are left out and counted, as are those that no judge answered for.
    """
    if form not in FORMS or sampling.num_answers < 1 + (form != "best"):
        raise UsageError(
            f"{sampling.num_answers} answer(s) as {form!r}",
            f"the forms are {', '.join(FORMS)}; to compare takes 2 answers or more",
        )
    loaded = load_model(run)
    dataset = _dataset(loaded, judge, sampling)
    judge = judge or PythonChecker()
    table = ExampleTable.of(dataset, sampling.split)
    chosen, num_too_long = _prompts(table, _context(loaded, sampling), sampling)
    rows, num_left_out, num_failed, num_answers, num_cut = [], 0, 0, 0, 0
    with Progress("answers", len(chosen) * sampling.num_answers) as bar:
        for number, answers in _answers(loaded, dataset, table, chosen, sampling):
            # One that was cut would be trained on as if it ended there.
            whole = [answer for answer in answers if answer.ended and answer.text.strip()]
            found = judge.scores(whole) if whole else []
            num_failed += found is None
            scores = {
                answer.text: score for answer, score in zip(whole, found or [], strict=found is not None)
            }
            num_cut += sum(not answer.ended for answer in answers)
            row = _row(f"{sampling.split}:{number}", answers[0].prompt, scores, form, at_least)
            rows += [row] if row else []
            num_left_out += row is None
            num_answers += len(answers)
            bar.advance(len(answers))
    if not rows:
        raise DataError(
            f"no prompt of {len(chosen)} has an answer that is good enough, or better than another",
            "take more answers, a higher temperature or a lower --at-least, or train the model longer",
        )
    write_atomic(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    counts: dict[str, Any] = {
        "out": str(out),
        "form": form,
        "rows": len(rows),
        "left_out": num_left_out,
        "not_judged": num_failed,
    }
    counts |= {"too_long": num_too_long, "answers": num_answers, "cut": num_cut}
    return counts | judge.summary()


def sampled(run: Path, sampling: Sampling) -> list[Answer]:
    """The run's own answers to prompts: what a reward model is normalised on, or a policy is judged by."""
    loaded = load_model(run)
    dataset = _plain_dataset(loaded, sampling.data)
    table = ExampleTable.of(dataset, sampling.split)
    chosen, _ = _prompts(table, _context(loaded, sampling), sampling)
    found = _answers(loaded, dataset, table, chosen, sampling)
    return [answer for _, answers in found for answer in answers]


def _plain_dataset(loaded: LoadedModel, data: str) -> Dataset:
    """Examples of plain text: those named, of the same tokenizer, or what the policy was trained on."""
    dataset = Dataset.open(data or loaded.dataset_path)
    if data and dataset.tokenizer().to_bytes() != load_tokenizer(loaded.tokenizer_path).to_bytes():
        raise UsageError(
            f"{data} was built with another tokenizer than {loaded.path} has",
            f"build it with data.tokenizer={loaded.path}",
        )
    if dataset.manifest.get("examples", {}).get("template") != "plain":
        raise UsageError(
            f"{dataset.location.root} does not hold examples with the plain template",
            'give a dataset with data.template = "plain" (--data), or a run of one, such as of sft-demo',
        )
    if not data and dataset.digest != loaded.dataset_digest:
        raise DataError(
            f"{loaded.dataset_path} is not the dataset that {loaded.path} was trained on",
            "build it again as it was",
        )
    return dataset


def _dataset(loaded: LoadedModel, judge: Judge | None, sampling: Sampling) -> Dataset:
    dataset = _plain_dataset(loaded, sampling.data)
    if isinstance(judge, LanguageModel):
        judge.has_gold = format_of(dataset) == "python-functions"
    if judge is None and format_of(dataset) != "python-functions":
        raise UsageError(
            f"{dataset.location.root} does not hold Python functions, which is all that the checker knows",
            "name reward models with --reward, or a --judge; or give a dataset of functions (--data)",
        )
    check_judge(judge, loaded, _context(loaded, sampling))
    return dataset


def check_judge(judge: Judge | None, loaded: LoadedModel, context: int) -> None:
    """UsageError for reward models that cannot read what a policy writes, of up to `context` tokens."""
    if (
        isinstance(judge, RewardModels)
        and judge.scorer.members[0].tokenizer_path.read_bytes() != loaded.tokenizer_path.read_bytes()
    ):
        raise UsageError(
            f"{judge.scorer.members[0].path} has another tokenizer than {loaded.path}",
            "give reward models that were begun from it, or from what it was begun from",
        )
    if isinstance(judge, RewardModels) and judge.scorer.context < context:
        raise UsageError(
            f"a reward model reads {judge.scorer.context} tokens, and {loaded.path} writes up to {context}",
            "give reward models with as large a context",
        )


def _answers(
    loaded: LoadedModel, dataset: Dataset, table: ExampleTable, chosen: list[int], sampling: Sampling
) -> Iterator[tuple[int, list[Answer]]]:
    """Of each prompt its answers, many prompts sampled at once."""
    tokenizer, context = dataset.tokenizer(), _context(loaded, sampling)
    engine = Engine(loaded.decoder(), num_slots=64, decode=tokenizer.decode)
    count = sampling.num_answers
    at_once = max(1, AT_ONCE // count)
    for first in range(0, len(chosen), at_once):
        some = chosen[first : first + at_once]
        requests = [
            _request(table, number, context, sampling, answer, tokenizer.end_of_text_id)
            for number in some
            for answer in range(count)
        ]
        found = engine.complete(requests)
        for place, number in enumerate(some):
            prompt, written = _texts(table, number, tokenizer)
            yield (
                number,
                [
                    Answer(
                        prompt,
                        tokenizer.decode(_without_end(completion, tokenizer.end_of_text_id)),
                        written,
                        np.array([*request.prompt, *completion.tokens], dtype=np.int64),
                        completion.finish == "stop",
                    )
                    for request, completion in zip(
                        requests[place * count : (place + 1) * count],
                        found[place * count : (place + 1) * count],
                        strict=True,
                    )
                ],
            )


def _context(loaded: LoadedModel, sampling: Sampling) -> int:
    own = int(loaded.config.model.context)
    return min(own, sampling.context) if sampling.context else own


def _prompts(table: ExampleTable, context: int, sampling: Sampling) -> tuple[list[int], int]:
    """Examples by hash, of which the prompt leaves room for an answer as long as the one that is there."""
    order = Permutation(table.num_examples, seed64(sampling.seed, "prompts"))
    # Of an example with several answers, the first stands for its prompt.
    numbers = [int(table.firsts[order(place)]) for place in range(table.num_examples)]
    fitting = [number for number in numbers if table.lengths[number] <= context]
    return sorted(fitting[: sampling.num_prompts]), len(numbers) - len(fitting)


def _request(
    table: ExampleTable, number: int, context: int, sampling: Sampling, answer: int, end_of_text_id: int
) -> Request:
    begin = int(table.spans_of(number)[0, 0])
    # A length of its own, so that an answer without end is told from one that was only cut.
    longest = sampling.max_new_tokens or 2 * (int(table.lengths[number]) - begin) + 16
    limit = min(context - begin, longest)
    return Request(
        table.tokens(number, begin).tolist(),
        limit,
        SamplingOptions(temperature=sampling.temperature),
        seed64(sampling.seed, "answer", number, answer),
        frozenset({end_of_text_id}),
    )


def _texts(table: ExampleTable, number: int, tokenizer: Any) -> tuple[str, str]:
    ids, begin = table.tokens(number).tolist(), int(table.spans_of(number)[0, 0])
    end = [id for id in ids[begin:] if id != tokenizer.end_of_text_id]
    return tokenizer.decode(ids[:begin]), tokenizer.decode(end)


def _without_end(completion: Completion, end_of_text_id: int) -> list[int]:
    return completion.tokens[:-1] if completion.tokens[-1] == end_of_text_id else completion.tokens


def _row(
    id: str, prompt: str, answers: dict[str, float], form: str, at_least: float | None = None
) -> dict[str, Any] | None:
    ranked = sorted(answers, key=lambda text: (-answers[text], text))
    if not ranked or (at_least is not None and answers[ranked[0]] < at_least):
        return None
    best, worst = ranked[0], ranked[-1]
    if form == "best":
        return {"id": id, "prompt": prompt, "response": best, "judged": answers[best]}
    if answers[best] == answers[worst]:
        return None
    if form == "ranking":
        scores = [answers[text] for text in ranked]
        return {"id": id, "prompt": prompt, "responses": ranked, "scores": scores}
    margin = answers[best] - answers[worst]
    return {"id": id, "prompt": prompt, "chosen": best, "rejected": worst, "judged_margin": margin}
