"""How commands print: scripts read stdout and exit codes, people read stderr."""

import json
import subprocess
import sys

import pytest

from cluster.output import command, emit, emit_line
from seedbed.errors import DataError


def test_json_is_one_strict_document(capsys):
    """A script that parses a run with a NaN loss would stop at a token that JSON does not have."""
    value = {"loss": float("nan"), "all": (1, float("inf"), {"low": -1.5}), "text": "ß"}
    emit(value, json=True, render=lambda value: pytest.fail("rendered for a script"))
    shown = capsys.readouterr()
    assert json.loads(shown.out, parse_constant=pytest.fail) == {
        "loss": None,
        "all": [1, None, {"low": -1.5}],
        "text": "ß",
    }
    assert shown.err == ""


def test_a_stream_is_a_document_a_line(capsys):
    """A script that follows a stream would wait for a bracket that closes at the end."""
    for step in range(3):
        emit_line({"step": step}, json=True, render=str)
    assert [json.loads(line)["step"] for line in capsys.readouterr().out.splitlines()] == [0, 1, 2]


def test_text_is_not_markup(capsys):
    """A user's run called `[red]` would vanish from the output."""
    emit({"name": "[red]"}, json=False, render=lambda value: value["name"])
    assert capsys.readouterr().out == "[red]\n"


def test_a_table_in_a_pipe_keeps_its_rows_whole(capsys):
    """A user who greps a table would find long paths folded over two lines."""
    from rich.table import Table

    def render(value):
        table = Table()
        table.add_column("path")
        table.add_row(value["path"])
        return table

    path = "/runs/" + "x" * 120
    emit({"path": path}, json=False, render=render)
    assert path in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code", "message", "fix"),
    [
        (
            DataError("part-3.tokens is damaged", "build it again"),
            3,
            "part-3.tokens is damaged",
            "build it again",
        ),
        (KeyboardInterrupt(), 130, "interrupted", ""),
        (
            KeyError("width"),
            1,
            "unexpected KeyError: 'width'",
            "this is a fault of Seedbed; report the traceback",
        ),
    ],
)
def test_an_error_has_one_shape(capsys, error, code, message, fix):
    """A script would have to guess from text what went wrong, and a user what to do."""

    @command
    def fails(*, json: bool = False) -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        fails(json=True)
    shown = capsys.readouterr()
    assert ended.value.code == code
    assert json.loads(shown.out) == {"error": message, "fix": fix, "exit_code": code}
    assert f"error: {message}\n" in shown.err
    assert not fix or f"  fix: {fix}\n" in shown.err

    with pytest.raises(SystemExit):
        fails(json=False)
    assert capsys.readouterr().out == ""


def test_a_closed_pipe_is_no_error(tmp_path):
    """A user who pipes into `head` would get a traceback."""
    script = (
        "from cluster.output import command, emit_line\n"
        "@command\n"
        "def stream(*, json=False):\n"
        "    for i in range(100000):\n"
        "        emit_line({'i': i}, json=True, render=str)\n"
        "stream()\n"
    )
    line = '"$0" -c "$1" | head -n 1; echo "${PIPESTATUS[0]}"'
    done = subprocess.run(
        ["bash", "-c", line, sys.executable, script], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert done.stdout.split("\n") == ['{"i": 0}', "141", ""]
    assert done.stderr == ""


def test_the_command_line_ends_itself_its_own_way():
    """A usage error of the command line would be reported as a fault of ours."""
    import typer

    @command
    def leaves(*, json: bool = False) -> None:
        raise typer.Exit(7)

    with pytest.raises(typer.Exit):
        leaves()
