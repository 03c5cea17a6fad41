"""A task on a scorer: what is asked, and what the answers say."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evals.bits_per_byte import DocumentScore, bits_per_byte, by_source, estimate_as_json
from evals.intervals import clusters_of, mean_of, measure, ratio_of
from evals.requests import Generated, GenerateUntil, LogLikelihood, Rolling, Scored
from evals.scoring.backend import Advance
from evals.scoring.scorer import Scorer
from evals.tasks.definition import GenerationSection, TaskDefinition
from evals.tasks.items import TaskItem, checked, items_digest
from evals.tasks.prompts import answers_of, context_of, drawn_examples
from models.generation import SamplingOptions, vote
from seedbed.randomness import seed64
from seedbed.statistics import Estimate
from training.rl.rules import number_in, unit_tests

Row = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """A task ready to be asked."""

    task: TaskDefinition
    items: list[TaskItem]
    preamble: str
    """What stands before every item: instruction and examples."""
    num_examples: int
    num_duplicates: int

    @property
    def digest(self) -> str:
        """Of the items; and of what stands before them, where something does."""
        alone = items_digest(self.items)
        shown = TaskItem("preamble", {"text": self.preamble})
        return items_digest([TaskItem(alone), shown]) if self.preamble else alone


def prepared(
    task: TaskDefinition,
    items: Sequence[TaskItem],
    *,
    pool: Sequence[TaskItem] | None = None,
    num_fewshot: int | None = None,
    limit: int | None = None,
) -> Question:
    """The items to ask, each once, without those that are shown as examples; the first `limit` of them."""
    kept, num_duplicates = checked(items, task.name, task.kind)
    num = task.few_shot.num if num_fewshot is None else num_fewshot
    preamble, left = drawn_examples(task, kept, pool, num)
    return Question(task, left[:limit], preamble, num, num_duplicates)


def run(question: Question, scorer: Scorer, advance: Advance | None = None) -> tuple[Row, list[Row]]:
    """(the result, a row for each item)."""
    kinds = {"multiple-choice": _choose, "rolling": _roll, "generate": _generate}
    found, rows = kinds[question.task.kind](question, scorer, advance)
    return {
        **found,
        "num_items": len(question.items),
        "num_duplicates": question.num_duplicates,
        "num_examples": question.num_examples,
        "num_cut": sum(row["num_cut"] > 0 for row in rows),
        "items": question.digest,
    }, rows


def num_requests(question: Question) -> int:
    """How often `advance` will count."""
    per_item = {"multiple-choice": lambda item: len(item.choices), "rolling": lambda item: 1}
    samples = question.task.generation.samples
    return sum(per_item.get(question.task.kind, lambda item: samples)(item) for item in question.items)


def _named(item: TaskItem) -> Row:
    return {"id": item.id, "document": item.document or item.id, "source": item.source}


def _choose(question: Question, scorer: Scorer, advance: Advance | None) -> tuple[Row, list[Row]]:
    task = question.task
    requests = [
        LogLikelihood(item.id, question.preamble + context_of(task, item), text)
        for item in question.items
        for text in answers_of(task, item)
    ]
    scored = iter(scorer.log_likelihoods(requests, advance))
    rows = [_chosen(item, [next(scored) for _ in item.choices], task) for item in question.items]
    judged = [row for row in rows if row["answer"] is not None]
    result: Row = {"num_merged": sum(row["is_merged"] for row in rows)}
    if not judged:
        return result | _preferred(rows), rows
    whole, per_byte = (_share(judged, name) for name in ("is_likeliest", "is_likeliest_per_byte"))
    bits = [-row["nats"][row["answer"]] / math.log(2) for row in judged]
    sizes = [row["bytes"][row["answer"]] for row in judged]
    documents = clusters_of([row["document"] for row in judged])
    smooth = measure(ratio_of(bits, sizes, "log"), documents)
    result |= estimate_as_json(per_byte if task.prompt.per_byte else whole) | {"unit": "accuracy"}
    result |= {"accuracy": estimate_as_json(whole), "accuracy_per_byte": estimate_as_json(per_byte)}
    return result | {"bits_per_byte_of_answers": estimate_as_json(smooth)}, rows


def _chosen(item: TaskItem, scored: Sequence[Scored], task: TaskDefinition) -> Row:
    nats = [one.log_likelihood for one in scored]
    rates = [one.log_likelihood / one.utf8_bytes for one in scored]
    best, best_rate = nats.index(max(nats)), rates.index(max(rates))
    shown = scored[item.answer or 0]
    preferred = best_rate if task.prompt.per_byte else best
    return {
        **_named(item),
        "score": None if item.answer is None else float(preferred == item.answer),
        "utf8_bytes": shown.utf8_bytes,
        "tokens": shown.tokens,
        "answer": item.answer,
        "predicted": preferred,
        "is_likeliest": best == item.answer,
        "is_likeliest_per_byte": best_rate == item.answer,
        "nats": nats,
        "bytes": [one.utf8_bytes for one in scored],
        "choice_tokens": [one.tokens for one in scored],
        "is_greedy": [one.is_greedy for one in scored],
        "labels": list(item.labels),
        "num_cut": max(one.num_cut for one in scored),
        "is_merged": any(one.is_merged for one in scored),
    }


def _share(rows: Sequence[Row], name: str) -> Estimate:
    """With an interval over documents."""
    right = [float(row[name]) for row in rows]
    return measure(mean_of(right, "share"), clusters_of([row["document"] for row in rows]))


def _preferred(rows: Sequence[Row]) -> Row:
    """Of choices none of which is right: how often the first is likelier than the second, and which is
    likeliest."""
    counts = Counter(
        row["labels"][row["predicted"]] if row["labels"] else str(row["predicted"]) for row in rows
    )
    first = [{**row, "first": row["nats"][0] > row["nats"][1]} for row in rows]
    names = rows[0]["labels"] or ["choice 0", "choice 1"]
    return {
        **estimate_as_json(_share(first, "first")),
        "unit": f"share that prefers {names[0]} to {names[1]}",
        "likeliest": {name: count / len(rows) for name, count in counts.most_common()},
    }


def _roll(question: Question, scorer: Scorer, advance: Advance | None) -> tuple[Row, list[Row]]:
    before = question.task.prompt.instruction
    texts = [before + context_of(question.task, item) for item in question.items]
    requests = [Rolling(item.id, text) for item, text in zip(question.items, texts, strict=True)]
    scores, rows = [], []
    for item, one in zip(question.items, scorer.rolling(requests, advance=advance), strict=True):
        bits = -one.log_likelihood / math.log(2)
        rows.append(
            {
                **_named(item),
                "score": bits,
                "utf8_bytes": one.utf8_bytes,
                "tokens": one.tokens,
                "num_cut": one.num_cut,
            }
        )
        scores.append(DocumentScore(item.id, item.source + "/.", bits, one.utf8_bytes, one.tokens))
    return {
        **estimate_as_json(bits_per_byte(scores)),
        "unit": "bits per byte",
        "documents": len(scores),
        "utf8_bytes": sum(score.utf8_bytes for score in scores),
        "tokens": sum(score.tokens for score in scores),
        "by_source": by_source(scores),
    }, rows


def _generate(question: Question, scorer: Scorer, advance: Advance | None) -> tuple[Row, list[Row]]:
    task, how = question.task, question.task.generation
    requests = [
        GenerateUntil(
            item.id,
            question.preamble + context_of(task, item),
            how.max_tokens,
            tuple(how.until),
            SamplingOptions(temperature=how.temperature),
            seed64(how.seed, item.id, sample),
        )
        for item in question.items
        for sample in range(how.samples)
    ]
    written = iter(scorer.generate(requests, advance))
    rows = [_judged(item, [next(written) for _ in range(how.samples)], how) for item in question.items]
    judged = [row for row in rows if row["score"] is not None]
    result: Row = {"num_failed": len(rows) - len(judged), "samples": how.samples}
    if how.judged_by == "nothing" or not judged:
        return {"value": None, "low": None, "high": None, "unit": "texts, not judged", **result}, rows
    several = how.samples > 1 and how.judged_by != "unit-tests"
    unit = "share of items whose most frequent answer is right" if several else "share of right answers"
    return {**estimate_as_json(_share(judged, "score")), "unit": unit, **result}, rows


def _judged(item: TaskItem, written: Sequence[Generated], how: GenerationSection) -> Row:
    """One item's answers. What could not be judged is None, and never 0."""
    answers = [extracted(one.text, how.pattern) for one in written]
    passed = [_is_right(answer, item, how) for answer in answers]
    chosen = None
    known = [float(one) for one in passed if one is not None]
    score = sum(known) / len(known) if known and len(known) == len(passed) else None
    if how.samples > 1 and how.judged_by in ("text", "number"):
        chosen = vote([None if answer is None else answer.strip() for answer in answers]).answer
        right = _is_right(chosen, item, how)
        score = None if right is None else float(right)
    return {
        **_named(item),
        "score": score,
        "utf8_bytes": sum(len(one.text.encode()) for one in written),
        "tokens": sum(one.tokens for one in written),
        "texts": [one.text for one in written],
        "answers": answers,
        "voted": chosen,
        "passed": passed,
        "references": list(item.references),
        "num_cut": max(one.num_cut for one in written),
    }


def extracted(text: str, pattern: str) -> str | None:
    """The last match of `pattern`, or its first group; None without a match. Without a pattern, the text."""
    if not pattern:
        return text
    found = list(re.finditer(pattern, text))
    if not found:
        return None
    return found[-1][1] if found[-1].re.groups else found[-1][0]


def _is_right(answer: str | None, item: TaskItem, how: GenerationSection) -> bool | None:
    """None where that cannot be said: nothing judges, or the sandbox did not start."""
    if how.judged_by == "nothing":
        return None
    if answer is None:
        return False
    if how.judged_by == "unit-tests":
        reward = unit_tests(item.around[0] + answer + item.around[1], item.tests)
        return None if reward.failure else reward.total == 1
    if how.judged_by == "number":
        got, wanted = number_in(answer), [number_in(reference) for reference in item.references]
        return got is not None and any(
            one is not None and math.isclose(got, one, rel_tol=1e-6) for one in wanted
        )
    return " ".join(answer.split()) in {" ".join(reference.split()) for reference in item.references}
