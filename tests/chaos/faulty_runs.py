"""Runs of `seedbed train` whose workers have faults, started as a user would, in a process of their own.

python faulty_runs.py RUN_DIR FAULTS [--resume | --recipe FILE INIT_FROM] [SETTING ...]
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SETTINGS = {
    "run.steps": 30, "model.num_layers": 1, "model.width": 48, "model.num_heads": 2, "model.context": 32,
    "model.dropout": 0.1, "batch.micro_batch_size": 2, "batch.tokens_per_step": 256,
    "checkpoint.every_steps": 5, "checkpoint.keep": 6, "eval.every_steps": 0, "tracking.mlflow": "false",
    "engine.num_ranks": 2, "engine.exact": "true",
}  # fmt: skip


def start(
    run: Path,
    faults: list[dict[str, Any]],
    *,
    resume: bool = False,
    recipe: tuple[Path, Path] | None = None,
    **changes: Any,
) -> subprocess.Popen[str]:
    """A run of `SETTINGS`, or of a recipe and the weights to begin with, changed (`guards__window=8`)."""
    settings = {
        **({} if resume or recipe else SETTINGS),
        **{k.replace("__", "."): v for k, v in changes.items()},
    }
    assignments = [f"{name}={value}" for name, value in settings.items()]
    command = [
        sys.executable,
        "-P",
        __file__,
        str(run),
        json.dumps(faults),
        *["--resume"] * resume,
        *(["--recipe", *map(str, recipe)] if recipe else []),
        *assignments,
    ]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen[str], code: int = 0, timeout_s: float = 180) -> str:
    """What it said; it has to end with `code`."""
    output, _ = process.communicate(timeout=timeout_s)
    assert process.returncode == code, output
    return output


def state_hash(run: Path) -> str:
    """SHA-256 over weights and optimizer state of the newest checkpoint."""
    seedbed = Path(sys.executable).with_name("seedbed")
    command = [str(seedbed), "checkpoint", "hash", "--optimizer", "--json", str(run)]
    return str(json.loads(subprocess.check_output(command, text=True))["hash"])


def main() -> None:
    from cluster.tracking import mirrored
    from training import prepare
    from training.launch import LocalLauncher, Worker, WorkerSpec
    from training.run_directory import RunDirectory
    from training.supervisor import Supervisor

    class FaultyLauncher(LocalLauncher):
        def start(self, spec: WorkerSpec) -> Worker:
            environment = {**spec.environment, "SEEDBED_TEST_FAULTS": faults, "PYTHONPATH": str(HERE)}
            return super().start(
                WorkerSpec(
                    spec.name, "faulty_worker", spec.arguments, spec.log, environment, spec.inherited_files
                )
            )

    path, faults, *assignments = sys.argv[1:]
    run_path = Path(path)
    with RunDirectory(run_path).lock() as lock:
        if assignments[:1] == ["--resume"]:
            run, _ = prepare.resume(run_path, assignments[1:])
            run.begin_session()
        elif assignments[:1] == ["--recipe"]:
            run, _ = prepare.start(assignments[1], assignments[3:], run_path, Path(assignments[2]))
        else:
            run, _ = prepare.start("gpt-demo", assignments, run_path)
        with mirrored(run):
            Supervisor(run, lock, FaultyLauncher()).supervise()


if __name__ == "__main__":
    from seedbed.errors import SeedbedError

    try:
        main()
    except SeedbedError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    os._exit(0)
