"""Runs on a Ray cluster of this machine: submitted, watched, killed, stopped and resumed."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.ray_local import processes_of
from cluster.watch import run_status
from tests.cluster_runs import LocalCluster, assignments, state_hash, supervisors, trained_twice
from tests.integration.test_rl_training import Prepared, trained
from training.metrics import read_events
from training.rl.rollouts import read_rollouts

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """One node with two CPUs."""
    here = LocalCluster(tmp_path_factory.mktemp("cluster"))
    up = here.json("cluster", "up", "--num-cpus", "2")
    assert up["started"], up
    yield here
    node = here.node()
    here.down()
    assert processes_of(node) == []
    assert supervisors(here.folder) == []


@pytest.fixture(scope="module")
def undisturbed(cluster):
    """The hash of the small run, trained without Ray."""
    outcome = cluster("train", "gpt-demo", "--run-dir", "runs/whole", *assignments())
    assert outcome.code == 0, outcome.stderr
    return state_hash(cluster.folder / "runs" / "whole")


@pytest.fixture(scope="module")
def first(cluster):
    """A submitted run that has ended: its directory, what `submit` said, its last status."""
    outcome = cluster("submit", "gpt-demo", "--run-dir", "runs/first", *assignments())
    assert outcome.code == 0, outcome.stderr
    run = cluster.folder / "runs" / "first"
    return run, outcome.stdout, cluster.finish(run)


def test_a_cluster_is_closed_from_the_start(cluster):
    """Whoever reaches an open cluster runs what they like on it."""
    node = cluster.node()
    token = Path(node["token"])
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert node["address"].startswith("127.0.0.1:")
    assert not cluster.json("cluster", "up")["started"]
    status = cluster.json("cluster", "status")
    assert (status["state"], status["hosts"][0]["total"]["CPU"]) == ("up", 2)
    wrong = cluster.folder / "wrong-token"
    wrong.touch(mode=0o600)
    wrong.write_text("0" * 64)
    refused = cluster("cluster", "status", RAY_AUTH_TOKEN_PATH=str(wrong))
    assert (refused.code, "token" in refused.stdout) == (1, True), refused
    without = cluster("cluster", "status", RAY_AUTH_MODE="disabled")
    assert (without.code, "no cluster without authentication" in without.stderr) == (2, True)
    wrong.chmod(0o644)
    exposed = cluster("cluster", "status", RAY_AUTH_TOKEN_PATH=str(wrong))
    assert (exposed.code, "is open to others (mode 644)" in exposed.stderr) == (2, True)
    opened = cluster("cluster", "up", "--dashboard-host", "0.0.0.0")
    assert (opened.code, "lets other machines reach the dashboard" in opened.stderr) == (2, True)


def test_a_submitted_run_is_the_run_that_a_laptop_makes(cluster, undisturbed, first):
    """What was tried out at home would be something else on the cluster."""
    run, said, status = first
    for told in (
        "submitted first-",
        f"seedbed status {run}",
        f"seedbed logs -f {run}",
        f"seedbed stop {run}",
    ):
        assert told in said
    assert state_hash(run) == undisturbed
    assert trained_twice(run) == []
    assert (status["step"], status["exit_code"], status["restarts"]) == (20, 0, 0)
    assert (status["checkpoint"]["step"], status["checkpoint"]["verified"]) == (20, True)
    assert status["hosts"] == ["127.0.0.1"]
    code = json.loads((run / "code" / "code.json").read_text())
    assert (run / "code" / "training" / "loop.py").is_file()
    assert len(code["seedbed"]["commit"]) == 40
    token = Path(cluster.node()["token"]).read_text()
    written = [
        path for path in cluster.folder.rglob("*") if path.is_file() and path != Path(cluster.node()["token"])
    ]
    assert [path for path in written if token.encode() in path.read_bytes()] == []
    shown = cluster("status", "first")
    assert "first: finished" in shown.stdout
    assert "step 20 of 20" in shown.stdout
    lines = cluster("logs", "-f", "first", "--json").stdout.splitlines()
    ends = [json.loads(line) for line in lines]
    assert {line["log"] for line in ends} >= {"supervisor"}
    again = cluster("submit", "gpt-demo", "--run-dir", "runs/first", *assignments())
    assert (again.code, "holds a run already (finished)" in again.stderr) == (2, True)
    longer = cluster("resume", "first")
    assert (longer.code, "--set run.steps=N, with a larger number" in longer.stderr) == (2, True)


@pytest.mark.long
def test_stop_ends_in_a_checkpoint_and_resume_needs_nothing_else(cluster, undisturbed):
    """Three seconds are what Ray gives a job; the work since the last save would be lost."""
    run = cluster.submit("stopped", run__steps=4000, checkpoint__every_steps=3000)
    cluster.until(run, lambda value: value["step"] >= 3)
    value = cluster.json("stop", "stopped")
    assert (value["state"], value["exit_code"]) == ("preempted", 5)
    assert value["checkpoint"]["step"] == value["step"] > 3
    assert cluster("stop", "stopped").code == 2
    cluster.json("resume", "stopped", "--set", f"run.steps={value['step'] + 5}")
    assert cluster.finish(run)["step"] == value["step"] + 5
    assert trained_twice(run) == []


@pytest.mark.long
def test_stop_now_does_not_wait(cluster):
    """A run that went wrong would go on while it is being saved."""
    run = cluster.submit("now", run__steps=4000, checkpoint__every_steps=3000)
    cluster.until(run, lambda value: value["step"] >= 3)
    started = time.monotonic()
    value = cluster.json("stop", "now", "--now")
    assert time.monotonic() - started < 15
    assert (value["state"], value["checkpoint"]) == ("preempted", None)


@pytest.mark.long
@pytest.mark.parametrize("victim", ["worker", "supervisor"])
def test_what_is_killed_comes_back_by_itself(cluster, undisturbed, victim):
    """A night's training would end with one process, whichever it was."""
    run = cluster.submit(victim)
    cluster.until(run, lambda value: value["step"] >= 7)
    record = run / ("heartbeats/rank-0.json" if victim == "worker" else "supervisor.json")
    os.kill(json.loads(record.read_text())["pid"], signal.SIGKILL)
    value = cluster.finish(run)
    assert value["restarts"] == 1
    assert state_hash(run) == undisturbed
    assert trained_twice(run) == []
    kinds = [event["kind"] for event in read_events(run)]
    assert ("worker_died" if victim == "worker" else "supervisor_died") in kinds


@pytest.mark.long
def test_the_controller_comes_back_and_knows_its_runs(cluster, undisturbed):
    """Healthy runs would be failed, or forgotten, with what only watches them."""
    run = cluster.submit("watched", run__steps=60)
    cluster.until(run, lambda value: value["step"] >= 2)
    before = json.loads((run / "supervisor.json").read_text())["pid"]
    # Of this cluster alone: another test may have one too.
    controllers = [
        pid
        for pid in processes_of(cluster.node())
        if b"ray::Controller" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    for pid in controllers:
        os.kill(pid, signal.SIGKILL)
    assert len(controllers) == 1
    value = cluster.finish(run)
    assert value["restarts"] == 0
    assert json.loads((run / "supervisor.json").read_text())["pid"] == before
    deadline = time.monotonic() + 30
    while cluster.json("cluster", "status")["controller"]["runs"]:
        assert time.monotonic() < deadline


@pytest.mark.long
def test_what_cannot_be_is_said_before_anything_is_made(cluster):
    """A mistake would be found after hours in a queue."""

    def refused(*options, code=2, **more):
        outcome = cluster("submit", "gpt-demo", "--run-dir", "runs/never", *options, *assignments(), **more)
        assert outcome.code == code, outcome
        assert not (cluster.folder / "runs" / "never").exists()
        return outcome.stderr

    assert "there is room for 2, 1 too few" in refused("--workers", "3")
    assert "this would fit: --workers 2" in refused("--workers", "3")
    assert "no host can take even one worker" in refused("--gpus-per-worker", "1")
    assert "more than the 6 micro-batch(es)" in refused("--workers", "9")
    assert "is neither N nor MIN:MAX" in refused("--workers", "3:1")
    assert "nobody answers at 127.0.0.1:1" in refused("--address", "127.0.0.1:1", code=1)
    huge = ["--set", "model.width=80000", "--set", "model.num_heads=2", "--set", "model.num_layers=100"]
    outcome = cluster("submit", "gpt-demo", "--run-dir", "runs/never", *assignments(), *huge)
    assert (outcome.code, "a worker needs" in outcome.stderr, "--force" in outcome.stderr) == (2, True, True)
    dry = cluster("submit", "gpt-demo", "--dry-run", "--workers", "1:2", *assignments())
    assert "it would start with 2 worker(s) now" in dry.stdout
    assert not (cluster.folder / "runs" / "never").exists()


def test_an_unreachable_cluster_says_nothing_about_a_run(cluster, first):
    """A flaky network would be taken for a failed run, and a healthy one restarted."""
    value = cluster.json("status", "/nowhere/run", "--address", "127.0.0.1:1")
    assert (value["state"], "nobody answers" in value["message"]) == ("unknown", True)
    assert run_status(first[0])["state"] == "finished"


@pytest.mark.long
def test_who_does_not_see_the_directory_asks_the_controller(cluster, first, tmp_path):
    """Status and logs would be had on the cluster's own hosts alone."""
    path = str(first[0])
    script = (
        "import json, sys; from cluster.run_access import DistantRun, follow\n"
        "run, lines = DistantRun(sys.argv[1], sys.argv[2]), []\n"
        "follow(run, None, {}, lines.append, to_the_end=True)\n"
        "print(json.dumps([run.status()['state'], len(lines)]))"
    )
    told = subprocess.run(
        [sys.executable, "-P", "-c", script, path, cluster.node()["address"]],
        env={**os.environ, **cluster.environment},
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    state, num_lines = json.loads(told.stdout)
    own = cluster("logs", path, "--json").stdout.splitlines()
    assert (state, num_lines) == ("finished", len(own))


@pytest.mark.long
def test_what_learns_from_rewards_is_the_same_wherever_its_workers_are(cluster, tmp_path):
    """In this process, in processes of this machine, on Ray, where the critic has a worker of its own, and
    reference and rewards another: other answers would be other rewards."""
    prepared = Prepared(tmp_path)
    recipe = prepared.recipe("ppo", 6, f"{prepared.reward()}\n{prepared.everything('ppo')}", "exact = true")
    begun = (str(recipe), "--init-from", str(prepared.policy))
    here = trained(tmp_path, recipe, "here", "engine.name=ddp", init_from=prepared.policy)
    ranks = ("--set", "engine.num_ranks=2", "--set", "engine.name=ddp")
    local, ray = (cluster.folder / "runs" / name for name in ("rl-local", "rl-ray"))
    outcome = cluster("train", *begun, "--run-dir", str(local), *ranks)
    assert outcome.code == 0, outcome.stderr
    apart = ("--set", "rl.scoring_workers=1", "--set", "rl.critic_workers=1")
    outcome = cluster("submit", *begun, "--run-dir", str(ray), *ranks, *apart)
    assert (outcome.code, "2 of them are beside the ranks" in outcome.stderr) == (2, True), outcome.stderr
    outcome = cluster("submit", *begun, "--run-dir", str(ray), *ranks, *apart, "--cpus-per-worker", "0.5")
    assert outcome.code == 0, outcome.stderr
    cluster.finish(ray)
    assert json.loads((ray / "heartbeats" / "rank-2.json").read_text())["phase"] in ("learning", "waiting")
    assert json.loads((ray / "heartbeats" / "rank-3.json").read_text())["phase"] in ("scoring", "waiting")
    assert state_hash(here) == state_hash(local) == state_hash(ray)
    files = [sorted((run / "rollouts").iterdir()) for run in (here, local, ray)]
    assert len(files[0]) == 2
    for answered in zip(*files, strict=True):
        answers = [read_rollouts(file) for file in answered]
        assert answers[0] == answers[1] == answers[2]
        assert all(one.reward and one.reward.parts for one in answers[0])
