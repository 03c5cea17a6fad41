"""Many runs on a cluster that is too small for them: all of them finish, in turn, and nothing is left."""

import json
import time
from pathlib import Path

import pytest

from cluster.watch import run_status
from tests.cluster_runs import LocalCluster, assignments, state_hash, supervisors

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
NUM_RUNS = 20


@pytest.fixture
def cluster(tmp_path):
    here = LocalCluster(tmp_path)
    here.json("cluster", "up", "--num-cpus", "2")
    yield here
    here.down()


def listening(pids):
    """TCP ports that these processes listen on."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                inodes.add(str(link.readlink()))
            except OSError:
                continue
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes}


def test_twenty_runs_on_two_cores(cluster):
    """A cluster would have to be watched over by a person, or filled by one."""
    started = [
        cluster.start(
            "submit", "gpt-demo", "--run-dir", f"runs/{number:02d}", "--json",
            "--priority", "5" if number == NUM_RUNS - 1 else "0",
            *assignments(run__steps=10, run__seed=number % 2),
        )
        for number in range(NUM_RUNS)
    ]  # fmt: skip
    for process in started:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    runs = [cluster.folder / "runs" / f"{number:02d}" for number in range(NUM_RUNS)]
    seen = set()
    deadline = time.monotonic() + 600
    while True:
        values = [run_status(run) for run in runs]
        running = [v for v in values if v["state"] in ("starting", "running", "waiting")]
        assert len(running) <= 3, running
        seen |= {v["message"] for v in values if v["state"] == "queued"}
        if all(v["exit_code"] is not None for v in values):
            break
        assert time.monotonic() < deadline, values
        time.sleep(0.5)
    assert {v["state"] for v in values} == {"finished"}
    assert len({state_hash(run) for run in runs}) == 2
    needs = "next in the queue: needs 1 worker with 1 CPU each, pack; free now: 127.0.0.1 0 of 2 CPU"
    assert any(needs in reason for reason in seen), seen
    assert any("in the queue (priority 0), behind" in s for s in seen)

    deadline = time.monotonic() + 30
    while supervisors(cluster.folder) and time.monotonic() < deadline:
        time.sleep(0.5)
    left = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in supervisors(cluster.folder)]
    assert [line for line in left if b"ray_supervisor" in line or b"training.worker" in line] == []
    status = cluster.json("cluster", "status")
    assert status["hosts"][0]["free"]["CPU"] == 2
    assert status["controller"]["runs"] == []
    assert list((cluster.folder / "runs" / ".queue").iterdir()) == []


def test_a_higher_priority_goes_first_and_a_stop_reaches_the_queue(cluster):
    """What is urgent would wait for what is not, and a mistake could not be taken back."""
    first = cluster.submit("first", "--workers", "2", run__steps=400)
    cluster.until(first, lambda v: v["step"] > 0)
    low = cluster.submit("low", "--workers", "2", run__steps=5)
    high = cluster.submit("high", "--workers", "2", "--priority", "7", run__steps=5)
    gone = cluster.submit("gone", run__steps=5)
    value = cluster.json("stop", "gone")
    assert (value["state"], value["message"]) == ("preempted", "stopped while it waited in the queue")
    assert cluster.until(low, lambda v: "behind" in v["message"])["state"] == "queued"
    assert value["step"] == 0
    for run in (first, high, low):
        cluster.finish(run, 200)
    begun = {run: json.loads((run / "supervisor.json").read_text())["birth"] for run in (low, high)}
    assert int(begun[high]) < int(begun[low])
    assert not (gone / "logs" / "supervisor.log").exists()
