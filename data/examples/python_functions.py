"""Functions of Python files as examples: the signature with its docstring asks, the body answers.

A file gives one example for each function that has a docstring and something to do after it, as it is written
there: decorators are left out, the whole is moved to the left margin.
"""

import ast
import textwrap
import warnings
from collections.abc import Iterator
from typing import Any

from data.examples.messages import Rejected


def rows_of(text: str) -> Iterator[dict[str, Any]]:
    """{"name", "prompt", "response"} of each function of a file, in order; Rejected when it does not
    parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in strings, which are the file's own business
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Rejected("malformed", f"not Python of this version: {error}") from None
    lines = text.splitlines(keepends=True)
    for name, function in _functions(tree):
        if found := _row(lines, function):
            prompt, response = found
            yield {"name": name, "prompt": prompt, "response": response}


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    waiting: list[tuple[str, ast.AST]] = [("", tree)]
    while waiting:
        prefix, node = waiting.pop()
        own = []
        for child in ast.iter_child_nodes(node):
            name = f"{prefix}{child.name}." if hasattr(child, "name") and child.name else prefix
            own.append((str(name), child))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix.removesuffix("."), node
        waiting += reversed(own)


def _row(lines: list[str], function: ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[str, str] | None:
    docstring, *body = function.body
    if not body or ast.get_docstring(function, clean=False) is None:
        return None
    # A statement on the line where the docstring ends would have to be cut within the line.
    if body[0].lineno <= (docstring.end_lineno or 0):
        return None
    cut = docstring.end_lineno or 0
    whole = textwrap.dedent("".join(lines[function.lineno - 1 : function.end_lineno]))
    kept = whole.splitlines(keepends=True)
    first = cut - function.lineno + 1
    prompt, response = "".join(kept[:first]), "".join(kept[first:])
    if not response.strip() or not prompt.startswith(("def ", "async def ")):
        return None
    return prompt, response.rstrip() + "\n"
