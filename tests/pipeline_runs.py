"""Pipelines and sweeps for tests: small ones, by the command line of this very checkout."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Outcome, run_command
from tests.mlflow_server import wait_for

PATIENCE_S = 300.0
"""On a machine that others are using too, a command of seconds may take minutes."""
SMALL = {
    "run": {"steps": 8},
    "model": {"num_layers": 1, "width": 32, "num_heads": 2, "context": 64},
    "batch": {"micro_batch_size": 2, "tokens_per_step": 256},
    "checkpoint": {"every_steps": 2, "keep": 3},
    "eval": {"every_steps": 4, "num_samples": 4, "sample_tokens": 4},
    "engine": {"num_ranks": 1, "exact": True},
    "data": {"path": "{shards}"},
}


class Front:
    """`seedbed` in a folder of its own, with a home and artefacts of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            "SEEDBED_HOME": str(folder / "home"),
            "SEEDBED_ARTEFACTS": str(folder / "artefacts"),
            "PYTHONPATH": str(ROOT),
            "RAY_ADDRESS": "",
        }
        texts = folder / "texts"
        texts.mkdir()
        for number in range(40):
            words = " ".join(f"word{(number * 7 + i * i) % 50}" for i in range(120))
            (texts / f"{number}.txt").write_text(words)

    @staticmethod
    def command(*arguments: str | Path) -> list[str]:
        if arguments[0] in ("pipeline", "sweep") and "--mlflow" not in arguments:
            arguments = (*arguments, "--mlflow", "none")
        return [sys.executable, "-P", "-m", "seedbed", *map(str, arguments)]

    def __call__(self, *arguments: str | Path, timeout_s: float = PATIENCE_S) -> Outcome:
        return run_command(
            self.command(*arguments), timeout_s=timeout_s, cwd=self.folder, env=self.environment
        )

    def json(self, *arguments: str | Path, code: int = 0, **more: Any) -> dict[str, Any]:
        """What a command says with --json; it has to end with `code`."""
        outcome = self(*arguments, "--json", **more)
        assert outcome.code == code, outcome.stderr + outcome.stdout
        return json.loads(outcome.stdout)

    def refused(self, *arguments: str | Path, code: int = 2) -> str:
        """What a command that is refused says."""
        outcome = self(*arguments)
        assert outcome.code == code, outcome.stderr + outcome.stdout
        return outcome.stderr

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """A command that goes on by itself; what it says goes to a file."""
        with open(self.folder / f"said-{time.monotonic_ns()}.txt", "wb") as said:
            process = subprocess.Popen(
                self.command(*arguments),
                cwd=self.folder,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        process.said = Path(said.name)  # type: ignore[attr-defined]
        return process

    @contextlib.contextmanager
    def inside(self) -> Iterator[Any]:
        """Commands in this process, for those that start nothing: `call(*arguments).exit_code`."""
        from typer.testing import CliRunner

        from cluster.main import app

        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            for name, value in self.environment.items():
                patch.setenv(name, value)
            yield lambda *arguments: CliRunner().invoke(app, [str(word) for word in arguments])

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def processes(self) -> list[int]:
        """Of commands that work on anything in the folder."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                words = (entry / "cmdline").read_bytes() if entry.name.isdecimal() else b""
            except OSError:
                continue
            if str(self.folder / "artefacts").encode() in words:
                found.append(int(entry.name))
        return [pid for pid in found if pid != os.getpid()]

    def kill_all(self, driver: subprocess.Popen[str]) -> None:
        """As a machine that loses its power does."""
        driver.kill()
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        driver.wait()


def until(condition: Callable[[], Any]) -> None:
    """Wait for something that takes seconds."""
    wait_for(condition, timeout_s=PATIENCE_S)


def toml_of(tables: dict[str, dict[str, Any]]) -> str:
    """`set.section.field = value` lines."""
    return "\n".join(
        f"set.{section}.{field} = {json.dumps(value)}"
        for section, fields in tables.items()
        for field, value in fields.items()
    )


SHARDS = """
[inputs]
texts = "texts"

[stage.shards]
command = "data build {texts} --out {out}"
set.data.vocab_size = 300
set.data.holdout_fraction = 0.2
set.data.near_duplicate_threshold = 0
"""


def stage_of(value: dict[str, Any], name: str) -> dict[str, Any]:
    """One stage of what `pipeline --json` says."""
    return next(stage for stage in value["stages"] if stage["stage"] == name)


def made(value: dict[str, Any]) -> list[str]:
    """The stages that were made by this call."""
    return [stage["stage"] for stage in value["stages"] if stage["made"]]
