"""Items -> prompts: templates in which {name} stands for a field, and examples before the question."""

import re
from collections.abc import Sequence
from string import ascii_uppercase

from evals.tasks.definition import TaskDefinition
from evals.tasks.items import TaskItem
from seedbed.errors import ConfigError
from seedbed.randomness import generator

_NAME = re.compile(r"\{(\w+)\}")


def filled(template: str, values: dict[str, str], where: str) -> str:
    """`template` with every {name} replaced, once; ConfigError, with `where`, for an unknown name."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise ConfigError(
                f"{where}: {{{match[1]}}} is no field of its items", f"fields: {', '.join(sorted(values))}"
            )
        return values[match[1]]

    return _NAME.sub(value, template)


def context_of(task: TaskDefinition, item: TaskItem) -> str:
    """What stands before the answer of an item."""
    lettered = [f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, item.choices, strict=False)]
    values = {"choices": "\n".join(lettered), **item.fields}
    return filled(task.prompt.context, values, f"{task.name}: prompt.context")


def answers_of(task: TaskDefinition, item: TaskItem) -> list[str]:
    """The text of each choice, as it is scored."""
    return [
        filled(
            task.prompt.answer,
            {**item.fields, "choice": choice, "letter": ascii_uppercase[number % 26]},
            f"{task.name}: prompt.answer",
        )
        for number, choice in enumerate(item.choices)
    ]


def example_of(task: TaskDefinition, item: TaskItem) -> str:
    """An item with its answer."""
    if task.kind == "multiple-choice":
        shown = answers_of(task, item)[item.answer or 0]
    else:
        template = task.prompt.answer.replace("{choice}", "{answer}")
        values = {"answer": (item.references or ("",))[0], **item.fields}
        shown = filled(template, values, f"{task.name}: prompt.answer")
    return context_of(task, item) + shown + task.few_shot.between


def drawn_examples(
    task: TaskDefinition, items: Sequence[TaskItem], pool: Sequence[TaskItem] | None, num: int
) -> tuple[str, list[TaskItem]]:
    """(what stands before every question, the items that are left to be asked).

    Examples come from `pool`, or else from the items, which are then not asked. The same `num` and seed draw
    the same ones; a smaller number draws the first of them.
    """
    candidates = list(items if pool is None else pool)
    if num > len(candidates) - (pool is None):
        raise ConfigError(
            f"{task.name}: {num} examples are asked for, and there are {len(candidates)} items",
            "ask for fewer, or name a file with examples (few_shot.path)",
        )
    order = generator(task.few_shot.seed, "few-shot").permutation(len(candidates))[:num]
    examples = [candidates[index] for index in order]
    shown = task.prompt.instruction + "".join(example_of(task, item) for item in examples)
    used = {item.id for item in examples} if pool is None else set()
    return shown, [item for item in items if item.id not in used]
