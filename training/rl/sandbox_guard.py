"""The process of a sandbox: `python -I -S` this file; see `sandbox`. Imports nothing of ours.

Reads what it is given as JSON from the standard input, gives away what the code must not have, and runs it
behind an audit hook. It says of itself on the standard error, each time after a word that the code does not
know.
"""

import ctypes
import io
import json
import os
import resource
import sys
from collections.abc import Callable
from typing import Any

CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWIPC = 0x10000000, 0x40000000, 0x08000000


def confined(seconds: float, memory_bytes: int) -> bool:
    """Take away time, memory, files, processes and network; whether the kernel gave namespaces."""
    libc = ctypes.CDLL(None, use_errno=True)
    is_isolated = libc.unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC) == 0
    is_isolated = is_isolated or libc.unshare(CLONE_NEWNET) == 0
    whole = max(1, int(seconds + 0.999))
    for what, soft, hard in (
        (resource.RLIMIT_CPU, whole, whole + 1),
        (resource.RLIMIT_AS, memory_bytes, memory_bytes),
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_NOFILE, 32, 32),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        most = resource.getrlimit(what)[1]
        if most != resource.RLIM_INFINITY:
            soft, hard = min(soft, most), min(hard, most)
        resource.setrlimit(what, (soft, hard))
    return is_isolated


def hook() -> Callable[[str, tuple[Any, ...]], None]:
    """What raises PermissionError for all that the sandbox does not have; it looks nothing up that code could
    change."""
    readable = (sys.prefix, sys.base_prefix, sys.exec_prefix, os.getcwd(), "/dev/null", "/dev/urandom")
    refused = (
        "socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn",
        "os.spawn", "os.kill", "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink",
        "os.truncate", "os.chmod", "os.chown", "os.setxattr", "os.putenv", "os.chdir", "shutil.", "ctypes.",
        "mmap.", "signal.", "resource.", "pty.", "fcntl.", "ftplib.", "urllib.", "http.", "smtplib.",
        "sqlite3.", "tempfile.", "webbrowser.", "syslog.", "code.__new__", "cpython.", "gc.", "sys._current",
        "sys._getframe", "sys.settrace", "sys.setprofile", "object.__", "pickle.", "marshal.",
    )  # fmt: skip
    modules = ("_ctypes", "_socket", "_posixsubprocess", "mmap", "resource")
    imports = ("marshal.load", "marshal.loads", "sys._getframe", "object.__getattr__", "code.__new__")
    writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    path_of, decode, error, kinds = os.path.abspath, os.fsdecode, PermissionError, (str, bytes)

    def show(path: object) -> None:
        name = decode(path) if isinstance(path, kinds) else ""
        if name and not path_of(name).startswith(readable):
            raise error(f"the sandbox does not show {name}")

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            if (isinstance(mode, str) and {*mode} & {*"wax+"}) or (flags or 0) & writes:
                raise error("the sandbox has no files to write")
            show(path)
        elif event in ("os.listdir", "os.scandir"):
            # Imports look through the folders of the library.
            show(arguments[0])
        elif event == "import":
            if arguments[0] in modules:
                raise error(f"the sandbox has no {arguments[0]}")
        elif event.startswith(refused) and event not in imports:
            raise error(f"the sandbox has no {event}")

    return refuse


def main() -> None:
    given = json.loads(sys.stdin.buffer.read())
    say = os.dup(2)

    def tell(word: str, nonce: str = given["nonce"]) -> None:
        os.write(say, f"\n{nonce} {word}\n".encode())

    if confined(given["seconds"], given["memory_bytes"]):
        tell("isolated")
    tell("began")
    sys.stdin = io.TextIOWrapper(io.BytesIO(given["stdin"].encode()))
    names = {"__name__": "__main__", "__builtins__": __builtins__}
    source = given.pop("source")
    given.clear()
    sys.argv = ["main.py"]
    sys.modules.pop("ctypes", None)
    sys.modules.pop("_ctypes", None)
    sys.modules.pop("resource", None)
    sys.modules["__main__"].__dict__.pop("ctypes", None)
    sys.modules["__main__"].__dict__.pop("resource", None)
    sys.addaudithook(hook())
    exec(compile(source, "main.py", "exec"), names)
    tell("done")


if __name__ == "__main__":
    main()
