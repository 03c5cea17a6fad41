"""A cluster of this machine for tests, with a home of its own, and small runs on it."""

import contextlib
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.conftest import SEEDBED, Outcome, run_command

SETTINGS = {
    "run.steps": 20, "model.num_layers": 1, "model.width": 48, "model.num_heads": 2, "model.context": 32,
    "model.dropout": 0.1, "batch.micro_batch_size": 2, "batch.tokens_per_step": 384,
    "checkpoint.every_steps": 5, "checkpoint.keep": 6, "eval.every_steps": 0, "tracking.mlflow": "false",
    "engine.num_ranks": 1, "engine.exact": "true",
}  # fmt: skip


def assignments(**changes: Any) -> list[str]:
    """`SETTINGS`, changed (`run__steps=8`), as arguments."""
    settings = SETTINGS | {name.replace("__", "."): value for name, value in changes.items()}
    return [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]


class LocalCluster:
    """`seedbed` with a home and a working folder of its own, and at most one node."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.environment = {"SEEDBED_HOME": str(self.home), "RAY_ADDRESS": ""}
        # As a user's own folder may be: with modules that are named as our rooms are.
        for name in ("data", "training"):
            (folder / f"{name}.py").write_text("raise ImportError('a module of the user, not of Seedbed')")

    def __call__(self, *arguments: str | Path, timeout_s: float = 120, **environment: str) -> Outcome:
        command = [str(SEEDBED), *map(str, arguments)]
        return run_command(
            command, timeout_s=timeout_s, cwd=self.folder, env={**self.environment, **environment}
        )

    def json(self, *arguments: str | Path, code: int = 0, **more: Any) -> dict[str, Any]:
        """What a command says with --json; it has to end with `code`."""
        outcome = self(*arguments, "--json", **more)
        assert outcome.code == code, outcome.stderr + outcome.stdout
        return json.loads(outcome.stdout)

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """A command that goes on by itself."""
        command = [str(SEEDBED), *map(str, arguments)]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def submit(self, name: str, *options: str, **changes: Any) -> Path:
        """Put a small run into the queue; its directory."""
        arguments = ["submit", "gpt-demo", "--run-dir", f"runs/{name}", *options, *assignments(**changes)]
        return Path(self.json(*arguments)["run"])

    def until(self, run: Path, condition: Any, timeout_s: float = 240) -> dict[str, Any]:
        """The run's status once `condition` holds of it."""
        from cluster.watch import run_status

        deadline = time.monotonic() + timeout_s
        while not condition(value := run_status(run)):
            log = run / "logs" / "supervisor.log"
            said = log.read_text() if log.exists() else ""
            assert time.monotonic() < deadline, f"{value}\n{said}"
            time.sleep(0.1)
        return value

    def finish(self, run: Path, timeout_s: float = 300) -> dict[str, Any]:
        """Its status at its end, which has to be a good one."""
        value = self.until(run, lambda v: v["exit_code"] is not None, timeout_s)
        said = (run / "logs" / "supervisor.log").read_text()
        assert value["state"] == "finished", f"{value}\n{said}"
        return value

    def node(self) -> dict[str, Any]:
        """What `cluster up` wrote down."""
        return json.loads((self.home / "cluster.json").read_text())

    def down(self) -> None:
        """End everything; leaves nothing behind."""
        self("cluster", "down", "--now")
        for pid in supervisors(self.folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)


def supervisors(folder: Path) -> list[int]:
    """Processes of runs below `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and str(folder).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return [pid for pid in found if pid != os.getpid()]


def state_hash(run: Path) -> str:
    """SHA-256 over weights and optimizer state of the newest checkpoint."""
    command = [str(SEEDBED), "checkpoint", "hash", "--optimizer", "--json", str(run)]
    return str(json.loads(subprocess.check_output(command, text=True))["hash"])


def trained_twice(run: Path) -> list[int]:
    """Steps that the records hold more than once, or not at all."""
    from training.metrics import surviving_rows

    steps = [row["step"] for row in surviving_rows(run) if row["kind"] == "train"]
    return sorted(set(steps) ^ set(range(1, max(steps) + 1))) + [s for s in set(steps) if steps.count(s) > 1]
