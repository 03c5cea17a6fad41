"""A checker of Python bodies: a rater that needs no people, for trying out what learns from preferences.

Of a body that answers a signature with its docstring it asks what can be told without running it: whether the
whole parses, whether it uses its arguments, whether it ends by itself at about the right length.
"""

import ast
import math
import warnings
from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """What was found; `score` is the sum of what follows, 2 for a parse and 1 for each of the others."""

    parses: bool
    uses: float
    """Share of the arguments (but `self` and `cls`) that the body names; 1 without any."""
    right_length: float
    """1 at the length of the body that was written there, falling to 0 at four times or a quarter of it; 0
    for one that did not end."""

    @property
    def score(self) -> float:
        return 2 * self.parses + self.uses + self.right_length


def check(prompt: str, body: str, written: str, *, ended: bool = True) -> Verdict:
    """Judge `body` as an answer to `prompt`, where `written` stood in the file."""
    function = _function(prompt + body)
    length = 0.0
    if ended and body.strip():
        ratio = math.log2(len(body.strip()) / max(1, len(written.strip())))
        length = max(0.0, 1 - abs(ratio) / 2)
    if function is None:
        return Verdict(False, 0.0, length)
    return Verdict(True, _share_used(function), length)


def _function(text: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """The one function that a text is, with a statement beside its docstring."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if len(body) != 1 or not isinstance(body[0], ast.FunctionDef | ast.AsyncFunctionDef):
        return None
    return body[0] if len(body[0].body) > 1 else None


def _share_used(function: ast.FunctionDef | ast.AsyncFunctionDef) -> float:
    every = function.args
    names = {
        argument.arg
        for argument in (*every.posonlyargs, *every.args, *every.kwonlyargs, every.vararg, every.kwarg)
        if argument is not None and argument.arg not in ("self", "cls")
    }
    used = {
        node.id for statement in function.body for node in ast.walk(statement) if isinstance(node, ast.Name)
    }
    return len(names & used) / len(names) if names else 1.0
