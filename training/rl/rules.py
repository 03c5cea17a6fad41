"""Rewards by rule: of texts alone, without a model. Each takes an answer and says 0 to 1, or less for a
penalty."""

import ast
import re
import warnings
from collections.abc import Sequence

from training.rl.outcomes import Reward
from training.rl.sandbox import Limits, Ran, run_python

_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def number_in(text: str) -> float | None:
    """The last number of a text; None without."""
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def accuracy(answer: str, expected: str, *, tolerance: float = 1e-6) -> float:
    """1 when the answer is the expected text, or the number that it ends with is the expected number.

    Where there is a block <answer>...</answer>, only that counts; what holds the tag in another way is wrong.
    """
    boxed = within_tags(answer, "answer")
    if boxed is None and "<answer>" in answer:
        return 0.0
    answer = answer if boxed is None else boxed
    expected = expected if (wanted := within_tags(expected, "answer")) is None else wanted
    if answer.strip() == expected.strip():
        return 1.0
    number = number_in(expected) if _NUMBER.fullmatch(expected.strip()) else None
    got = number_in(answer)
    if number is None or got is None:
        return 0.0
    return float(abs(got - number) <= tolerance * max(1.0, abs(number)))


def within_tags(answer: str, tag: str) -> str | None:
    """What stands in the one pair of <tag>...</tag>; None when there is none, or another."""
    found = re.findall(rf"<{re.escape(tag)}>(.*?)</{re.escape(tag)}>", answer, re.DOTALL)
    is_one = answer.count(f"<{tag}>") == answer.count(f"</{tag}>") == len(found) == 1
    return str(found[0]) if is_one else None


def format_of(answer: str, tags: Sequence[str] = ("think", "answer")) -> float:
    """1 when the answer is one block of each tag, in this order, and nothing but white space beside them."""
    pattern = r"\s*".join(rf"<{re.escape(tag)}>.*?</{re.escape(tag)}>" for tag in tags)
    is_whole = re.fullmatch(rf"\s*{pattern}\s*", answer, re.DOTALL) is not None
    return float(is_whole and all(within_tags(answer, tag) is not None for tag in tags))


def parses(source: str) -> float:
    """1 when it is Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return 0.0
    return 1.0


_BLOCK = re.compile(r"```(?:python|py)?\n(.*?)```", re.DOTALL)


def tests_of(prompt: str, answer: str, response: str) -> tuple[str, list[str]]:
    """(the code that is tested, the tests): a test is one assert of a response with what stands before it.

    The code is the answer's last fenced block, or, without one, the answer as it continues the prompt. There
    are no tests in a response that is no Python.
    """
    blocks = _BLOCK.findall(answer)
    try:
        statements = ast.parse(response).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        statements = []
    before: list[str] = []
    tests = []
    for statement in statements:
        if isinstance(statement, ast.Assert):
            tests.append("\n".join([*before, ast.unparse(statement)]))
        else:
            before.append(ast.unparse(statement))
    return (blocks[-1] if blocks else prompt + answer), tests


def unit_tests(source: str, tests: Sequence[str], limits: Limits = Limits()) -> Reward:
    """The share of tests (statements, such as asserts) that pass, each after the source in a sandbox of its
    own.

    A test is passed when its last line was reached. Code that is wrong, leaves before that, does not end, is
    ended by a signal or tries what is forbidden fails: that is the answer's doing. A sandbox that did not
    start is the judge's.
    """
    ends: list[Ran] = [run_python(f"{source}\n\n{test}\n", limits) for test in tests]
    if missing := [ran for ran in ends if ran.end == "unavailable"]:
        return Reward(failure="crashed", detail=f"the sandbox did not start: {missing[0].error}")
    passed = sum(ran.end == "finished" for ran in ends)
    return Reward({"unit_tests": passed / len(tests) if tests else 0.0})
