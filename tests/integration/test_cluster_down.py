"""A cluster that is taken down with runs on it, commands about runs that nobody knows, and what is left."""

import json

import pytest

from cluster.ray_local import processes_of
from seedbed.files import write_json
from tests.cluster_runs import LocalCluster, assignments, supervisors
from training.run_directory import STOP, RunDirectory

pytestmark = pytest.mark.timeout(300)


def refused(outcome, code, *words):
    said = outcome.stderr + outcome.stdout
    assert outcome.code == code, said
    assert all(word in said for word in words), said


@pytest.mark.long
def test_going_down_ends_runs_and_queue_and_says_so(tmp_path):
    """Supervisors would linger, runs look alive, and a stop wait for ever."""
    cluster = LocalCluster(tmp_path)
    cluster.json("cluster", "up", "--num-cpus", "1")
    try:
        node = cluster.node()
        running = cluster.submit("running", run__steps=5000, checkpoint__every_steps=5000)
        cluster.until(running, lambda v: v["step"] >= 1)
        queued = cluster.submit("queued")
        cluster.until(queued, lambda v: v["state"] == "queued" and v["message"] != "submitted")

        refused(cluster("logs", "-f", "nosuch", timeout_s=60), 2, "nosuch is not a run directory")
        refused(cluster("logs", "running", "--rank", "7"), 2, "there is no log rank-7")
        again = cluster("submit", "gpt-demo", "--run-dir", "runs/running", *assignments())
        refused(again, 2, "holds a run already", "seedbed status")
        refused(cluster("resume", "running"), 2, "running is on its way already")
        refused(cluster("cluster", "down"), 2, "2 run(s) are on it, or wait for it", "--now")

        down = cluster("cluster", "down", "--now")
        assert down.code == 0, down.stderr
    finally:
        cluster.down()
    assert processes_of(node) == []
    assert supervisors(tmp_path) == []
    for run in (running, queued):
        status = cluster.json("status", run)
        assert (status["state"], "stopped" in status["message"]) == ("preempted", True)
    refused(cluster("stop", "running"), 2, "is not running: preempted")
    refused(cluster("resume", "running"), 1, "nobody answers at")

    # As if its cluster had gone away all at once.
    RunDirectory(queued).write_status("queued", 0, "next in the queue")
    (queued / STOP).unlink()
    gone = cluster.json("status", queued)
    assert (gone["state"], "when last heard of, it was queued" in gone["message"]) == ("unknown", True)
    refused(cluster("stop", "queued"), 1, "cannot be asked to stop", "does not answer")
    # It would be stopped by it when it goes on elsewhere.
    assert not RunDirectory(queued).stop_requested()
    write_json(
        queued / "submission.json", {**json.loads((queued / "submission.json").read_text()), "address": ""}
    )
    assert cluster.json("status", queued)["state"] == "queued"
