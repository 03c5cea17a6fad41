"""How a run ends is told by the kind of error, to whoever started it from Python too."""

import subprocess
import sys

import pytest

from seedbed.errors import DataError, TrainingError, UsageError
from seedbed.files import write_json
from training.launch import Worker, WorkerSpec
from training.launch.local import LocalLauncher, LocalWorker
from training.recipes import load_config, to_toml
from training.run_directory import RunDirectory
from training.supervisor import Supervisor


class EndsWith(LocalLauncher):
    """Starts processes that say why they fail, and end with a code."""

    def __init__(self, run: RunDirectory, code: int) -> None:
        self.run, self.code = run, code

    def start(self, spec: WorkerSpec) -> Worker:
        write_json(self.run.heartbeat_path(0), {"rank": 0, "error": "rank 0: why\n  fix: so"})
        process = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({self.code})"])
        return LocalWorker(spec.name, process)


@pytest.mark.parametrize("kind", [UsageError, DataError, TrainingError])
def test_a_worker_s_exit_code_comes_back_as_its_error(tmp_path, kind):
    """Who looks for another way after one kind of failure would never see that kind."""
    run = RunDirectory(tmp_path)
    run.config_path.write_text(to_toml(load_config("gpt-demo", ["engine.num_ranks=1", "engine.device=cpu"])))
    (tmp_path / "heartbeats").mkdir()
    with run.lock() as lock, pytest.raises(kind) as raised:
        Supervisor(run, lock, EndsWith(run, kind.exit_code)).supervise()
    assert (type(raised.value), raised.value.message, raised.value.fix) == (kind, "rank 0: why", "so")
