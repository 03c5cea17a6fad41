"""Sums of two numbers below a hundred that are thought through before they are answered, digit by digit from
the right: prompt " 4 7 + 3 8 =", response

    <think> 7 + 8 = 1 5 , 4 + 3 + 1 = 8</think><answer> 8 5</answer>

The examples are few: they show how to think, and leave room to become better at it. The responses of the
tasks are what is to stand in the answer, and no more.
"""

import random
from collections.abc import Iterator

from training.rl.exercises.arithmetic import LARGEST, TASKS, digits

EXAMPLES = 400


def examples(seed: int = 0) -> Iterator[dict[str, str]]:
    """A cold start."""
    draw = random.Random(seed)
    for _ in range(EXAMPLES):
        left, right = draw.randint(0, LARGEST), draw.randint(0, LARGEST)
        yield {"prompt": _prompt(left, right), "response": thought_through(left, right)}


def tasks(seed: int = 0) -> Iterator[dict[str, str]]:
    """Without thoughts."""
    draw = random.Random(seed + 1)
    for _ in range(TASKS):
        left, right = draw.randint(0, LARGEST), draw.randint(0, LARGEST)
        yield {"prompt": _prompt(left, right), "response": digits(left + right)}


def thought_through(left: int, right: int) -> str:
    """Column by column, with what is carried."""
    columns: list[str] = []
    carried, rest = 0, (left, right)
    while any(rest) or not columns:
        terms = [rest[0] % 10, rest[1] % 10, *([carried] if carried else [])]
        columns.append(f"{' +'.join(digits(term) for term in terms)} ={digits(sum(terms))}")
        carried, rest = sum(terms) // 10, (rest[0] // 10, rest[1] // 10)
    return f" <think>{' ,'.join(columns)}</think><answer>{digits(left + right)}</answer>"


def _prompt(left: int, right: int) -> str:
    return f"{digits(left)} +{digits(right)} ="
