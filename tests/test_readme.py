"""The README does what it says: its targets exist, its commands parse, and its marked blocks run.

A block is marked by `<!-- test -->` on the line before its fence; marked blocks run in order, in one folder.
"""

import os
import re
import shlex
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import ROOT, SEEDBED, run_command

FENCE = re.compile(r"^(?P<mark><!-- test -->\n)?```(?P<kind>console|sh|bash)\n(?P<body>.*?)^```", re.M | re.S)
MARK = "<!-- test -->"
BLOCK_TIMEOUT_S = 1500
OPTION = re.compile(r"(?<![\w-])--?[A-Za-z][\w-]*")


class Block(NamedTuple):
    """One fenced block of shell."""

    is_marked: bool
    commands: list[str]


@cache
def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def blocks() -> Iterator[Block]:
    """The shell blocks of the README; of a `console` block only what follows the prompt."""
    for match in FENCE.finditer(readme()):
        lines = match["body"].replace("\\\n", " ").splitlines()
        if match["kind"] == "console":
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        commands = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        yield Block(match["mark"] is not None, commands)


def invocations(program: str) -> Iterator[list[str]]:
    """The arguments of every call of `program` in the README."""
    for block in blocks():
        for line in block.commands:
            lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            lexer.commenters = "#"
            words: list[str] = []
            for word in [*lexer, ";"]:
                if set(word) <= set(";&|()<>"):
                    while words and re.fullmatch(r"\w+=.*", words[0]):
                        words.pop(0)
                    if words and Path(words[0]).name == program:
                        yield words[1:]
                    words = []
                else:
                    words.append(word)


def test_the_readme_shows_how_to_begin():
    """The tests below would pass over a README without commands, or with a mark that marks nothing."""
    assert ["setup"] in list(invocations("make"))
    assert list(invocations("seedbed"))
    assert readme().count(MARK) == sum(block.is_marked for block in blocks())


def test_every_make_target_exists():
    """A newcomer's first command would be answered by `No rule to make target`."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.M))
    named = {word for words in invocations("make") for word in words if "=" not in word and word[0] != "-"}
    assert named - targets == set()


@cache
def options_of(words: tuple[str, ...]) -> frozenset[str]:
    """The options that `seedbed WORDS --help` shows; fails when there is no such command."""
    command = [str(SEEDBED), *words, "--help"]
    shown = run_command(
        command, timeout_s=60, cwd=ROOT, env={"COLUMNS": "300", "NO_COLOR": "1", "TERM": "dumb"}
    )
    assert shown.code == 0, f"seedbed {shlex.join(words)}: {shown.stderr}"
    return frozenset(OPTION.findall(shown.stdout))


def test_every_command_parses():
    """A user would copy a command from the README and read `No such option`."""
    wrong = []
    for words in invocations("seedbed"):
        is_option = [word.startswith("-") for word in words]
        first = is_option.index(True) if True in is_option else len(words)
        known = options_of(tuple(words[:first]))
        for word in words[first:]:
            if word.startswith("-") and word.split("=")[0] not in known:
                wrong.append(f"seedbed {shlex.join(words)}: no option {word}")
    assert wrong == []


@pytest.mark.long
@pytest.mark.timeout(BLOCK_TIMEOUT_S + 60)
def test_marked_blocks_run(tmp_path):
    """A user who follows the README would not get to the end of it."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    marked = [block for block in blocks() if block.is_marked]
    assert marked, "no block of the README is marked to be run"
    for block in marked:
        script = "\n".join(block.commands)
        ended = run_command(
            ["bash", "-euo", "pipefail", "-c", script],
            timeout_s=BLOCK_TIMEOUT_S,
            cwd=tmp_path,
            env={"PATH": path},
        )
        assert ended.code == 0, f"{script}\n{ended.stdout}\n{ended.stderr}"
