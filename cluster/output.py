"""How every command speaks: results on stdout, errors on stderr, one exit code for each kind.

With `--json` a command prints one JSON document (JSON Lines where it streams) on stdout and nothing
else there; without it, text and tables for a person. An error is `error: ...` and `fix: ...` on stderr
in both forms, and with `--json` the same as a document.
"""

import errno
import functools
import math
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from json import dumps
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from seedbed.errors import EXIT_OTHER, SeedbedError

if TYPE_CHECKING:
    from rich.console import RenderableType

EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE
_OF_THE_MACHINE = {
    errno.EACCES, errno.EDQUOT, errno.EIO, errno.ENODEV, errno.ENOSPC, errno.ENOTCONN, errno.ENOTDIR,
    errno.ENXIO, errno.EPERM, errno.EROFS, errno.ESTALE,
}  # fmt: skip
"""Errors that are the machine's and not Seedbed's: a permission, a full disk, a mount that is gone."""

P = ParamSpec("P")
R = TypeVar("R")


def plain(value: Any) -> Any:
    """`value` with everything that JSON lacks replaced: NaN and infinities by null, paths by text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return plain(value.tolist())
    return value


def emit(value: dict[str, Any], *, json: bool, render: "Callable[[dict[str, Any]], RenderableType]") -> None:
    """Print the one result of a command: `value` as JSON, or what `render` makes of it.

    `render` returns text or anything else that rich prints; text is printed as it is, without markup.
    """
    if json:
        _write(dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False))
        return
    shown = render(value)
    if isinstance(shown, str):
        _write(shown)
        return
    from rich.console import Console

    # A pipe has no width: rows stay whole there instead of being folded at 80 columns.
    width = None if sys.stdout.isatty() else 200
    Console(file=sys.stdout, width=width, highlight=False).print(shown)
    sys.stdout.flush()


def emit_line(value: dict[str, Any], *, json: bool, render: Callable[[dict[str, Any]], str]) -> None:
    """Print one of many results of a command that streams: a line of JSON, or a line of text."""
    _write(dumps(plain(value), ensure_ascii=False, allow_nan=False) if json else render(value))


def note(text: str) -> None:
    """Tell a person something on stderr that is not the result."""
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def _write(text: str) -> None:
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
    sys.stdout.flush()


def report_error(message: str, fix: str, exit_code: int, *, json: bool) -> None:
    """Print an error in the one shape that errors have."""
    note(f"error: {message}" + (f"\n  fix: {fix}" if fix else ""))
    if json:
        try:
            _write(dumps({"error": message, "fix": fix, "exit_code": exit_code}, ensure_ascii=False))
        except OSError:
            _discard_stdout()


@contextmanager
def reporting(*, json: bool) -> Iterator[None]:
    """Turn what goes wrong inside into an error report and the exit code that stands for it.

    A fault of our own keeps its traceback, on stderr. The command line's own exceptions pass.
    """
    try:
        yield
        sys.stdout.flush()  # so that a closed pipe shows here, and not while the interpreter ends
    except SeedbedError as error:
        report_error(error.message, error.fix, error.exit_code, json=json)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        report_error("interrupted", "", EXIT_INTERRUPTED, json=json)
        raise SystemExit(EXIT_INTERRUPTED) from None
    except BrokenPipeError:
        _discard_stdout()
        raise SystemExit(EXIT_BROKEN_PIPE) from None
    except OSError as error:
        if error.errno not in _OF_THE_MACHINE and not isinstance(error, shutil.Error):
            raise _ours(error, json=json) from None
        fix = "check the path, its owner and permissions, and that its disk is mounted and has space"
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        report_error(what, fix, EXIT_OTHER, json=json)
        raise SystemExit(EXIT_OTHER) from None
    except Exception as error:
        if _belongs_to_command_line(error):
            raise
        raise _ours(error, json=json) from None


def _ours(error: Exception, *, json: bool) -> SystemExit:
    traceback.print_exc()
    message = f"unexpected {type(error).__name__}: {error}"
    report_error(message, "this is a fault of Seedbed; report the traceback", EXIT_OTHER, json=json)
    return SystemExit(EXIT_OTHER)


def command(function: Callable[P, R]) -> Callable[P, R]:
    """`reporting` around a whole command; its `json` parameter says in which form."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with reporting(json=bool(kwargs.get("json", False))):
            return function(*args, **kwargs)

    return wrapped


def _belongs_to_command_line(error: Exception) -> bool:
    """Whether typer (or the click inside or beside it) raised this to end the program its own way."""
    return any(kind.__module__.split(".")[0] in ("typer", "click") for kind in type(error).__mro__)


def _discard_stdout() -> None:
    """Point stdout at nothing, or the interpreter would complain once more when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
