"""Functions to complete, judged by the examples of their docstrings.

An item is a function of a module, at its outermost level: the model reads its signature and docstring and
writes the body. For the tests the module stands around it, so that what the function calls is there. An
example becomes a test when it is one expression with an expected value; a function is asked for when its own
body passes all of them in the sandbox.
"""

import ast
import doctest
import warnings
from collections.abc import Iterator, Sequence

from evals.tasks.items import TaskItem
from training.rl.rules import unit_tests
from training.rl.sandbox import Limits

MAX_CONTEXT_CHARACTERS = 2000
LIMITS = Limits(seconds=10.0)


def functions_with_doctests(texts: Sequence[tuple[str, str, str]]) -> Iterator[TaskItem]:
    """Of (id, path, text) of each module."""
    for name, path, text in texts:
        if ">>>" not in text:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        for function in tree.body:
            if isinstance(function, ast.FunctionDef) and (item := _item(name, path, text, function)):
                yield item


def _item(name: str, path: str, text: str, function: ast.FunctionDef) -> TaskItem | None:
    docstring = ast.get_docstring(function, clean=False)
    body = function.body[1:]
    if docstring is None or not body or body[0].lineno <= (function.body[0].end_lineno or 0):
        return None
    tests = tuple(_tests(docstring))
    lines = text.splitlines(keepends=True)
    cut, end = function.body[0].end_lineno or 0, function.end_lineno or 0
    prompt = "".join(lines[function.lineno - 1 : cut])
    if not tests or len(prompt) > MAX_CONTEXT_CHARACTERS:
        return None
    own = "".join(lines[cut:end])
    around = ("".join(lines[:cut]), "\n" + "".join(lines[end:]))
    # The module says what it is called, so that it does not run as a program.
    around = (_renamed(around[0]), around[1])
    return TaskItem(
        f"{name}#{function.name}",
        {"context": prompt},
        references=(own,),
        tests=tests,
        around=around,
        document=name,
        source=path.strip("/").partition("/")[0],
    )


def is_passed_by_its_own_body(item: TaskItem) -> bool:
    """Whether the tests are fair: they may need what a sandbox does not have."""
    passed = unit_tests(item.around[0] + item.references[0] + item.around[1], item.tests, LIMITS)
    return not passed.failure and passed.total == 1


def _renamed(text: str) -> str:
    """With a name that is not that of a program; `from __future__` has to stay first."""
    return text if "from __future__" in text else f"__name__ = 'module'\n{text}"


def _tests(docstring: str) -> Iterator[str]:
    try:
        examples = doctest.DocTestParser().get_examples(docstring)
    except ValueError:
        return
    before = ""
    for example in examples:
        try:
            ast.parse(example.source, mode="eval")
        except SyntaxError:
            before += example.source
            continue
        if example.want.strip() and not example.exc_msg and not example.options:
            yield f"{before}assert repr({example.source.strip()}) == {example.want.strip()!r}"
