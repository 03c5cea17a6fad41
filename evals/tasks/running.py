"""A task on a scorer: what is asked, and what the answers say."""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from evals.requests import Generated, GenerateUntil, LogLikelihood, Rolling, Scored
from evals.scoring.backend import Advance
from evals.scoring.scorer import Scorer
from evals.task_results import ItemScores, summarize
from evals.tasks.definition import GenerationSection, TaskDefinition
from evals.tasks.items import TaskItem, checked, items_digest
from evals.tasks.prompts import answers_of, context_of, drawn_examples
from models.generation import SamplingOptions, vote
from seedbed.randomness import seed64
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
    change: Callable[[str], str] | None = None
    """Of what stands before an item's answer; examples stay as they are."""

    def context(self, item: TaskItem) -> str:
        """What stands before the answer of an item, and after the preamble."""
        text = context_of(self.task, item)
        return self.change(text) if self.change else text

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


def run(question: Question, scorer: Scorer, advance: Advance | None = None) -> tuple[Row, ItemScores]:
    """(the result, the scores of its items)."""
    kinds = {"multiple-choice": _choose, "rolling": _roll, "generate": _generate}
    metrics, rows = kinds[question.task.kind](question, scorer, advance)
    found = ItemScores(rows, question.digest)
    judged = found.only(row["is_judged"] for row in rows)
    counts = {
        "num_items": len(rows),
        "num_failed": len(rows) - len(judged),
        "num_duplicates": question.num_duplicates,
        "num_examples": question.num_examples,
        "num_cut": sum(row["num_cut"] > 0 for row in rows),
        "num_merged": sum(bool(row.get("is_merged")) for row in rows),
    }
    if not metrics or not len(judged):
        nothing = {"value": None, "low": None, "high": None, "unit": "texts, not judged"}
        return nothing | counts | {"items": question.digest}, found
    told = summarize(question.task.name, judged, metrics).as_json()
    if metrics == ["prefers_first"]:
        told |= _preferred(rows)
    return told | counts | {"items": question.digest}, found


def num_requests(question: Question) -> int:
    """How often `advance` will count."""
    per_item = {"multiple-choice": lambda item: len(item.choices), "rolling": lambda item: 1}
    samples = question.task.generation.samples
    return sum(per_item.get(question.task.kind, lambda item: samples)(item) for item in question.items)


def _named(item: TaskItem) -> Row:
    return {"item": item.id, "cluster": item.document or item.id, "source": item.source}


def _choose(question: Question, scorer: Scorer, advance: Advance | None) -> tuple[list[str], list[Row]]:
    task = question.task
    requests = [
        LogLikelihood(item.id, question.preamble + question.context(item), text)
        for item in question.items
        for text in answers_of(task, item)
    ]
    scored = iter(scorer.log_likelihoods(requests, advance))
    rows = [_chosen(item, [next(scored) for _ in item.choices]) for item in question.items]
    if all(item.answer is None for item in question.items):
        return ["prefers_first"], [{**row, "is_judged": True} for row in rows]
    accuracies = ["accuracy", "accuracy_per_byte"]
    if task.prompt.per_byte:
        accuracies.reverse()
    return [*accuracies, "gold_bits_per_byte", "ece"], rows


def _chosen(item: TaskItem, scored: Sequence[Scored]) -> Row:
    return {
        **_named(item),
        "is_judged": item.answer is not None,
        "gold": item.answer,
        "log_likelihoods": [one.log_likelihood for one in scored],
        "choice_bytes": [one.utf8_bytes for one in scored],
        "choice_tokens": [one.tokens for one in scored],
        "is_greedy": [one.is_greedy for one in scored],
        "labels": list(item.labels),
        "num_cut": max(one.num_cut for one in scored),
        "is_merged": any(one.is_merged for one in scored),
    }


def _preferred(rows: Sequence[Row]) -> Row:
    """Of choices none of which is right: what the first two are called, and how often each is likeliest."""
    names = rows[0]["labels"] or ["choice 0", "choice 1"]
    likeliest = [row["log_likelihoods"].index(max(row["log_likelihoods"])) for row in rows]
    counts = Counter(
        row["labels"][n] if row["labels"] else str(n) for row, n in zip(rows, likeliest, strict=True)
    )
    return {
        "unit": f"share that prefers {names[0]} to {names[1]}",
        "likeliest": {name: count / len(rows) for name, count in counts.most_common()},
    }


def _roll(question: Question, scorer: Scorer, advance: Advance | None) -> tuple[list[str], list[Row]]:
    before = question.task.prompt.instruction
    texts = [before + context_of(question.task, item) for item in question.items]
    requests = [Rolling(item.id, text) for item, text in zip(question.items, texts, strict=True)]
    rows = [
        {
            **_named(item),
            "is_judged": True,
            "nats": -one.log_likelihood,
            "utf8_bytes": one.utf8_bytes,
            "words": len(text.split()),
            "tokens": one.tokens,
            "num_cut": one.num_cut,
        }
        for item, text, one in zip(
            question.items, texts, scorer.rolling(requests, advance=advance), strict=True
        )
    ]
    return ["bits_per_byte", "bits_per_word", "perplexity"], rows


def _generate(question: Question, scorer: Scorer, advance: Advance | None) -> tuple[list[str], list[Row]]:
    how = question.task.generation
    requests = [
        GenerateUntil(
            item.id,
            question.preamble + question.context(item),
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
    if how.judged_by == "nothing":
        return [], rows
    if how.judged_by == "unit-tests":
        return ["pass@1"], rows
    texts = ["exact_match"] if how.judged_by == "text" else []
    return ["right", *texts], rows


def _judged(item: TaskItem, written: Sequence[Generated], how: GenerationSection) -> Row:
    """One item's answers. What could not be judged is None, and never 0; of several answers the most frequent
    one counts, where there is such a thing."""
    answers = [extracted(one.text, how.pattern) for one in written]
    passed = [_is_right(answer, item, how) for answer in answers]
    final, right = answers[0], passed[0]
    if how.samples > 1 and how.judged_by in ("text", "number"):
        final = vote([None if answer is None else answer.strip() for answer in answers]).answer
        right = _is_right(final, item, how)
    return {
        **_named(item),
        "is_judged": None not in passed and right is not None,
        "right": None if right is None else float(right),
        "prediction": final or "",
        "references": list(item.references),
        "samples": len(passed),
        "passed": sum(map(bool, passed)),
        "texts": [one.text for one in written],
        "answers": answers,
        "tokens": sum(one.tokens for one in written),
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
