"""Sums of two numbers below a hundred, digit by digit: prompt " 4 7 + 8 =", response " 5 5"."""

import random
from collections.abc import Iterator

LARGEST, EXAMPLES, TASKS = 99, 2000, 2000


def examples(seed: int = 0) -> Iterator[dict[str, str]]:
    """To learn the form of an answer from, and some of the sums."""
    return _sums(random.Random(seed), EXAMPLES)


def tasks(seed: int = 0) -> Iterator[dict[str, str]]:
    """Other sums, mostly."""
    return _sums(random.Random(seed + 1), TASKS)


def _sums(draw: random.Random, number: int) -> Iterator[dict[str, str]]:
    for _ in range(number):
        left, right = draw.randint(0, LARGEST), draw.randint(0, LARGEST)
        yield {"prompt": f"{digits(left)} +{digits(right)} =", "response": digits(left + right)}


def digits(number: int) -> str:
    """Each after a space."""
    return "".join(f" {digit}" for digit in str(number))
