"""The MLflow mirror against a real server and a real database: nothing lost, nothing doubled."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from seedbed.files import append_line, write_atomic, write_json
from tests.mlflow_server import Server, steps_of, the_run, wait_for
from training.tracking import default_uri, finish_mirror, replay, start_mirror

CONFIG = """
[run]
name = "small"
steps = 60

[model]
width = 64

[optimizer]
betas = [0.9, 0.95]
"""


@pytest.fixture
def run_dir(tmp_path):
    """A run that has been created and has not begun."""
    path = tmp_path / "runs" / "first"
    path.mkdir(parents=True)
    write_atomic(path / "config.toml", CONFIG)
    identity = {"model.width": 64, "dataset_digest": "d" * 64}
    write_json(path / "recipe.json", {"recipe": "gpt-small", "config_hash": "c" * 64, "identity": identity})
    set_status(path, "running")
    return path


def set_status(run_dir: Path, state: str) -> None:
    write_json(run_dir / "status.json", {"state": state, "step": 0, "time": time.time(), "message": ""})


def write_rows(run_dir: Path, first: int, last: int) -> None:
    for step in range(first, last + 1):
        row = {
            "kind": "train",
            "attempt": 0,
            "step": step,
            "time": 1.7e9 + step,
            "loss": 4 / step,
            "mfu_full": None,
        }
        append_line(run_dir / "metrics.jsonl", row)


def state_of(run_dir: Path) -> dict:
    path = run_dir / "tracking.json"
    return json.loads(path.read_text()) if path.exists() else {"rows": 0, "state": "absent", "message": ""}


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "server"
    folder.mkdir()
    server = Server(folder)
    yield server
    server.kill()


@pytest.mark.long
def test_a_server_that_comes_late_and_dies_gets_every_row_once(run_dir, server):
    """A user with a flaky tracking server would find holes or doubled points in the curves."""
    mirror = start_mirror(run_dir, server.uri, "tests")
    write_rows(run_dir, 1, 20)
    wait_for(lambda: state_of(run_dir)["state"] == "waiting for the server")
    server.start()
    wait_for(lambda: state_of(run_dir)["rows"] == 20)
    server.kill()
    started = time.monotonic()
    write_rows(run_dir, 21, 40)
    assert time.monotonic() - started < 1.0
    server.start()
    write_rows(run_dir, 41, 60)
    write_atomic(run_dir / "report.html", "<p>the report</p>")
    set_status(run_dir, "finished")
    assert finish_mirror(mirror, 60)

    client, run = the_run(server.uri)
    assert steps_of(client, run, "train/loss") == list(range(1, 61))
    assert [metric.value for metric in client.get_metric_history(run.info.run_id, "train/loss")][3] == 1.0
    assert "train/mfu_full" not in run.data.metrics
    assert run.info.status == "FINISHED"
    assert run.data.params["optimizer.betas"] == "[0.9, 0.95]"
    assert run.data.params["run.name"] == "small"
    assert run.data.tags["seedbed.dataset_digest"] == "d" * 64
    assert [artifact.path for artifact in client.list_artifacts(run.info.run_id)] == ["report.html"]


@pytest.mark.long
def test_a_mirror_killed_again_and_again_doubles_nothing(run_dir):
    """A user whose node is shared with the out-of-memory killer would see the same point many times."""
    uri = default_uri(run_dir)
    write_rows(run_dir, 1, 30)
    first = start_mirror(run_dir, uri, "tests")
    wait_for(lambda: state_of(run_dir)["rows"] == 30)
    first.kill()
    first.wait()
    # As if it had died after the server took the rows and before it noted that.
    state = state_of(run_dir)
    write_json(run_dir / "tracking.json", {**state, "offset": 0, "rows": 0, "run_id": None})
    with open(run_dir / "metrics.jsonl", "ab") as file:
        file.write(b'{"kind": "train", "step": 31, "lo')  # torn by a crash of the trainer
    write_rows(run_dir, 31, 60)
    append_line(
        run_dir / "metrics.jsonl",
        {"kind": "train", "step": 61, "time": 1.7e9, "loss": float("nan"), "attempt": 1},
    )
    write_atomic(run_dir / "config.toml", CONFIG.replace("steps = 60", "steps = 90"))
    set_status(run_dir, "failed")
    assert replay(run_dir, uri, "tests")
    assert replay(run_dir, uri, "tests")

    client, run = the_run(uri)
    assert Counter(steps_of(client, run, "train/loss")) == Counter(range(1, 62))
    assert run.info.status == "FAILED"
    assert run.data.params["run.steps"] == "60"
    assert run.data.tags["changed.run.steps"] == "90"
    assert not (run_dir.parent / "mlruns").exists()


def test_a_mirror_does_not_outlive_a_killed_trainer(run_dir):
    """A user who kills a run would find processes of it days later."""
    script = (
        "import sys, time; from pathlib import Path\n"
        "from training.tracking import start_mirror, default_uri\n"
        "run = Path(sys.argv[1]); mirror = start_mirror(run, default_uri(run), 'tests')\n"
        "print(mirror.pid, flush=True); time.sleep(600)"
    )
    trainer = subprocess.Popen(
        [sys.executable, "-c", script, str(run_dir)], stdout=subprocess.PIPE, text=True
    )
    mirror_pid = int(trainer.stdout.readline())
    write_rows(run_dir, 1, 5)
    wait_for(lambda: state_of(run_dir)["rows"] == 5)
    assert os.getpriority(os.PRIO_PROCESS, mirror_pid) == 19
    trainer.kill()
    write_rows(run_dir, 6, 9)
    trainer.wait()
    wait_for(lambda: state_of(run_dir)["state"] == "complete")
    wait_for(lambda: not Path(f"/proc/{mirror_pid}/cmdline").exists() or not _is_running(mirror_pid))
    client, run = the_run(default_uri(run_dir))
    assert steps_of(client, run, "train/loss") == list(range(1, 10))
    assert run.info.status == "KILLED"


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_server_that_never_comes_is_given_up_in_bounded_time(run_dir, server):
    """A user's job would hold its machine after the last step, waiting for a tracking server."""
    mirror = start_mirror(run_dir, server.uri, "tests")
    write_rows(run_dir, 1, 5)
    set_status(run_dir, "finished")
    started = time.monotonic()
    assert not finish_mirror(mirror, 3.0)
    assert time.monotonic() - started < 6.0
    assert mirror.returncode is not None
    assert not replay(run_dir, server.uri, "tests", drain_s=1.0)
