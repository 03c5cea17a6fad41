"""Runs a script behind an audit hook: `python -I -S` this file SCRIPT; see `sandbox`. Imports nothing of
ours."""

import os
import sys
from typing import Any

READABLE = (sys.prefix, sys.base_prefix, sys.exec_prefix, os.getcwd(), "/dev/null", "/dev/urandom")
REFUSED = (
    "socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn",
    "os.kill", "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate",
    "os.chmod", "os.chown", "os.setxattr", "os.putenv", "os.chdir", "shutil.",
    "ctypes.", "mmap.", "signal.", "resource.", "pty.", "fcntl.", "ftplib.", "urllib.", "http.", "smtplib.",
    "sqlite3.", "tempfile.", "webbrowser.", "syslog.", "code.__new__", "cpython.",
)  # fmt: skip
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """Raise PermissionError for what the sandbox does not have."""
    if event == "open":
        path, mode, flags = arguments
        if (isinstance(mode, str) and set(mode) & set("wax+")) or (flags or 0) & WRITES:
            raise PermissionError("the sandbox has no files to write")
        _show(path)
    elif event in ("os.listdir", "os.scandir"):
        # Imports look through the folders of the library.
        _show(arguments[0])
    elif event == "import" and arguments[0] in ("_ctypes", "_socket", "_posixsubprocess", "mmap", "resource"):
        raise PermissionError(f"the sandbox has no {arguments[0]}")
    elif event.startswith(REFUSED):
        raise PermissionError(f"the sandbox has no {event}")


def _show(path: object) -> None:
    name = os.fsdecode(path) if isinstance(path, str | bytes) else ""
    if name and not os.path.abspath(name).startswith(READABLE):
        raise PermissionError(f"the sandbox does not show {name}")


def main(path: str) -> None:
    with open(path, encoding="utf-8") as file:
        code = compile(file.read(), path, "exec")
    names = {"__name__": "__main__", "__builtins__": __builtins__}
    sys.argv = [path]
    sys.addaudithook(refuse)
    exec(code, names)


if __name__ == "__main__":
    main(sys.argv[1])
