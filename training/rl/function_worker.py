"""The process of a reward function: `python -m training.rl.function_worker WHERE NAME`; see `functions`.

Answers go to a copy of the standard output; what the function prints goes to the standard error.
"""

import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from typing import IO, Any


def load(where: str, name: str) -> Callable[..., Any]:
    """The function of a module, or of a file, whose folder is then where its own imports are looked for."""
    if where.endswith(".py"):
        sys.path.append(os.path.dirname(where))
        spec = importlib.util.spec_from_file_location("reward_function", where)
        if spec is None or spec.loader is None:
            raise ImportError(f"{where} is no Python file")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    else:
        # Behind all else: a folder may hold modules that are named as ours are.
        sys.path.append(os.getcwd())
        module = importlib.import_module(where)
    function = getattr(module, name)
    if not callable(function):
        raise TypeError(f"{where}:{name} is no function")
    return function


def plain(values: Any) -> Any:
    """As JSON has it: arrays and tensors as lists; what cannot be said, as its text."""
    if hasattr(values, "tolist"):
        return values.tolist()
    if isinstance(values, list | tuple):
        return [plain(value) for value in values]
    return values if values is None or isinstance(values, int | float | str) else repr(values)


def say(file: IO[str], value: dict[str, Any]) -> None:
    # nan and infinity are written as Python reads them.
    file.write(json.dumps(value) + "\n")
    file.flush()


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        function = load(*sys.argv[1:])
    except BaseException as error:
        return say(answers, {"error": f"{type(error).__name__}: {error}"})
    say(answers, {})
    for line in sys.stdin:
        try:
            say(answers, {"values": plain(function(**json.loads(line)))})
        except Exception as error:
            say(answers, {"error": f"{type(error).__name__}: {error}"})
    return None


if __name__ == "__main__":
    main()
