"""Comparisons from a model's own answers: sampled for the prompts of its dataset, judged by a checker.

An answer is a function of (weights, prompt, seed, number): the same command gives the same file.
"""

import json
from pathlib import Path
from typing import Any

from data.examples.table import ExampleTable, format_of
from data.order import Permutation
from data.shards import Dataset
from models.generation import Completion, Engine, Request, SamplingOptions
from seedbed.errors import DataError, UsageError
from seedbed.files import write_atomic
from seedbed.progress import Progress
from seedbed.randomness import seed64
from training.checkpoint.models import LoadedModel, load_model
from training.rewards.python_checker import Verdict, check

FORMATS = ("preference", "ranking")
AT_ONCE = 256


def compare(
    run: Path,
    out: Path,
    *,
    split: str = "train",
    num_prompts: int = 300,
    num_answers: int = 3,
    temperature: float = 0.8,
    form: str = "preference",
    seed: int = 0,
) -> dict[str, Any]:
    """Write `out`, JSON Lines of data.format `form`, and return what became of the prompts.

    The run must have been trained on data.format = "python-functions" with data.template = "plain". Prompts
    whose answers are all as good are left out and counted; the best and the worst answer make a pair, all
    make a ranking.
    """
    if form not in FORMATS or num_answers < 2:
        raise UsageError(
            f"comparisons of {num_answers} answers as {form!r}", f"use 2 or more, as {' or '.join(FORMATS)}"
        )
    loaded = load_model(run)
    dataset = _dataset(loaded)
    tokenizer, table = dataset.tokenizer(), ExampleTable.of(dataset, split)
    context = loaded.config.model.context
    chosen, num_too_long = _prompts(table, context, num_prompts, seed)
    engine = Engine(loaded.decoder(), num_slots=64, decode=tokenizer.decode)
    rows, num_alike, verdicts = [], 0, []
    with Progress("answers", len(chosen) * num_answers) as bar:
        for first in range(0, len(chosen), max(1, AT_ONCE // num_answers)):
            some = chosen[first : first + max(1, AT_ONCE // num_answers)]
            requests = [
                _request(table, number, context, temperature, seed64(seed, "answer", number, answer))
                for number in some
                for answer in range(num_answers)
            ]
            found = engine.complete([_stopping(request, tokenizer.end_of_text_id) for request in requests])
            for place, number in enumerate(some):
                own = found[place * num_answers : (place + 1) * num_answers]
                prompt, written = _texts(table, number, tokenizer)
                answers = {}
                for completion in own:
                    text = tokenizer.decode(_without_end(completion, tokenizer.end_of_text_id))
                    verdict = check(prompt, text, written, ended=completion.finish == "stop")
                    verdicts.append(verdict)
                    if text.strip():
                        answers[text] = verdict.score
                row = _row(f"{split}:{number}", prompt, answers, form)
                rows += [row] if row else []
                num_alike += row is None
            bar.advance(len(requests))
    if not rows:
        raise DataError(
            f"no prompt of {len(chosen)} has answers of which one is better than another",
            "take more answers or a higher temperature, or train the model longer",
        )
    write_atomic(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return {"out": str(out), "rows": len(rows), "alike": num_alike, "too_long": num_too_long} | _summary(
        verdicts
    )


def _dataset(loaded: LoadedModel) -> Dataset:
    dataset = Dataset.open(loaded.dataset_path)
    about = dataset.manifest.get("examples", {})
    if format_of(dataset) != "python-functions" or about.get("template") != "plain":
        raise UsageError(
            f"{loaded.path} was not trained on Python functions with the plain template",
            "give a run of the recipe sft-demo; other comparisons come from raters, as JSONL",
        )
    if dataset.digest != loaded.dataset_digest:
        raise DataError(
            f"{loaded.dataset_path} is not the dataset that {loaded.path} was trained on",
            "build it again as it was",
        )
    return dataset


def _prompts(table: ExampleTable, context: int, count: int, seed: int) -> tuple[list[int], int]:
    """Examples by hash, of which the prompt leaves room for an answer as long as the one that is there."""
    order = Permutation(table.num_examples, seed64(seed, "prompts"))
    numbers = [order(place) for place in range(table.num_examples)]
    fitting = [number for number in numbers if table.lengths[number] <= context]
    return sorted(fitting[:count]), len(numbers) - len(fitting)


def _request(table: ExampleTable, number: int, context: int, temperature: float, seed: int) -> Request:
    begin = int(table.spans_of(number)[0, 0])
    room = context - begin
    # A length of its own, so that an answer without end is told from one that was only cut.
    limit = min(room, 2 * (int(table.lengths[number]) - begin) + 16)
    prompt = table.tokens(number, begin).tolist()
    return Request(prompt, limit, SamplingOptions(temperature=temperature), seed)


def _stopping(request: Request, end_of_text_id: int) -> Request:
    return Request(
        request.prompt, request.max_new_tokens, request.options, request.seed, frozenset({end_of_text_id})
    )


def _texts(table: ExampleTable, number: int, tokenizer: Any) -> tuple[str, str]:
    ids, begin = table.tokens(number).tolist(), int(table.spans_of(number)[0, 0])
    end = [id for id in ids[begin:] if id != tokenizer.end_of_text_id]
    return tokenizer.decode(ids[:begin]), tokenizer.decode(end)


def _without_end(completion: Completion, end_of_text_id: int) -> list[int]:
    return completion.tokens[:-1] if completion.tokens[-1] == end_of_text_id else completion.tokens


def _row(id: str, prompt: str, answers: dict[str, float], form: str) -> dict[str, Any] | None:
    ranked = sorted(answers, key=lambda text: (-answers[text], text))
    if len(ranked) < 2 or answers[ranked[0]] == answers[ranked[-1]]:
        return None
    if form == "ranking":
        return {
            "id": id,
            "prompt": prompt,
            "responses": ranked,
            "scores": [answers[text] for text in ranked],
        }
    best, worst = ranked[0], ranked[-1]
    margin = answers[best] - answers[worst]
    return {"id": id, "prompt": prompt, "chosen": best, "rejected": worst, "checker_margin": margin}


def _summary(verdicts: list[Verdict]) -> dict[str, float]:
    count = max(1, len(verdicts))
    return {
        "answers": len(verdicts),
        "parse": sum(verdict.parses for verdict in verdicts) / count,
        "uses_arguments": sum(verdict.uses for verdict in verdicts) / count,
        "right_length": sum(verdict.right_length for verdict in verdicts) / count,
        "score": sum(verdict.score for verdict in verdicts) / count,
    }
