"""Runs on three hosts, of which one dies, is cut off, comes late, or does not see the run directory."""

import json
import os
import signal
import subprocess
import time

import pytest

from tests.cluster_runs import assignments, state_hash, trained_twice
from tests.conftest import SEEDBED
from tests.hosts import Hosts, unavailable
from training.fence import newest_attempt
from training.metrics import read_events, surviving_rows

WHY_NOT = unavailable()
pytestmark = [
    pytest.mark.root,
    pytest.mark.chaos,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT),
]
STEPS = 240
# Long enough for two hosts to join and one to go.
ELASTIC_STEPS = 1500
CHANGES = {"run__steps": STEPS, "checkpoint__every_steps": 20}
SPREAD = ("--workers", "3", "--placement", "spread")
BACK_S = 60.0


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    made = Hosts(tmp_path_factory.mktemp("hosts"), 3, num_cpus=2)
    try:
        made.up(1, 2, 3)
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def undisturbed(hosts):
    return trained_here(hosts, "whole", CHANGES)


def trained_here(hosts, name, changes):
    """The hash of the same run on one rank, without Ray."""
    command = [str(SEEDBED), "train", "gpt-demo", "--run-dir", str(hosts.folder / name)]
    subprocess.run([*command, *assignments(**changes)], check=True, capture_output=True)
    return state_hash(hosts.folder / name)


@pytest.fixture
def three(hosts):
    """All of them there and connected."""
    for host in hosts.hosts:
        host.heal()
    hosts.up(1, 2, 3)
    hosts.until_hosts(3)
    return hosts


def back_in_s(run, since):
    """Seconds from `since` until steps were trained again in a later attempt."""
    first = min(row["attempt"] for row in surviving_rows(run) if row["kind"] == "train")
    later = [r["time"] for r in surviving_rows(run) if r["kind"] == "train" and r["attempt"] > first]
    return min(later) - since


def check_whole(run, expected):
    assert state_hash(run) == expected
    assert trained_twice(run) == []


def test_a_host_that_dies_is_done_without(three, undisturbed):
    """A power cut in one rack would end the run on all the others."""
    run = three.submit("killed", *SPREAD, **CHANGES)
    value = three.until(run, lambda v: v["step"] >= 30)
    assert len(value["hosts"]) == 3
    killed = time.time()
    three.hosts[2].kill()
    three.finish(run, 400)
    check_whole(run, undisturbed)
    assert back_in_s(run, killed) < BACK_S
    died = next(event for event in read_events(run) if event["kind"] == "worker_died")
    assert (died["cause"], three.hosts[2].address in died["message"]) == ("infrastructure", True)


def test_a_host_that_is_cut_off_and_comes_back_does_no_harm(three, undisturbed):
    """Two attempts would write into one run."""
    run = three.submit("cut", *SPREAD, **CHANGES)
    three.until(run, lambda v: v["step"] >= 30)
    lost = time.time()
    three.hosts[2].cut()
    time.sleep(60)
    three.hosts[2].heal()
    three.finish(run, 400)
    check_whole(run, undisturbed)
    assert back_in_s(run, lost) < BACK_S
    assert newest_attempt(run) == 1
    deadline = time.monotonic() + 60
    while workers := [pid for pid in three.hosts[2].pids() if is_worker(pid)]:
        assert time.monotonic() < deadline, workers
        time.sleep(1)


def is_worker(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return b"training.worker" in file.read()
    except OSError:
        return False


def test_the_driver_is_killed_and_its_workers_do_no_harm(three, undisturbed):
    """What only supervises would be the weakest part."""
    run = three.submit("driverless", *SPREAD, **CHANGES)
    three.until(run, lambda v: v["step"] >= 30)
    killed = time.time()
    os.kill(json.loads((run / "supervisor.json").read_text())["pid"], signal.SIGKILL)
    three.finish(run, 400)
    check_whole(run, undisturbed)
    assert back_in_s(run, killed) < BACK_S


def test_a_host_without_the_mount_is_named_and_the_run_refused(three):
    """Its part of every checkpoint would be written where nobody finds it."""
    three.hosts[1].unmount()
    try:
        run = three.submit("blind", "--workers", "3", "--placement", "strict-spread", **CHANGES)
        value = three.until(run, lambda v: v["exit_code"] is not None)
    finally:
        three.hosts[1].mount()
    assert (value["state"], value["exit_code"]) == ("failed", 2)
    assert f"{three.hosts[1].address} (" in value["message"]
    assert "do not see the run directory" in value["message"]


def test_logs_are_followed_from_outside_over_a_death_of_the_controller(three):
    """A wrapper would take the end of the stream for the end of the run, and kill it."""
    run = three.submit("told", *SPREAD, run__steps=120)
    seen = three.folder / "runs" / "told"
    assert not seen.exists()
    command = ["logs", "-f", "--json", str(seen), "--address", three.address]
    # On the head, without its mount: through the controller alone.
    outside = [
        *three.head.command("unshare", "--mount", "sh", "-c"),
        f'umount {three.folder}/runs; exec "$@"',
        "sh",
    ]
    follower = subprocess.Popen(
        [*outside, str(SEEDBED), *command],
        env={**os.environ, **three.head.environment}, cwd=three.folder,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    three.until(run, lambda v: v["step"] >= 50)
    for pid in three.head.pids():
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                is_controller = b"ray::Controller" in file.read()
        except OSError:
            continue
        if is_controller:
            os.kill(pid, signal.SIGKILL)
    three.finish(run, 400)
    stdout, stderr = follower.communicate(timeout=60)
    assert follower.returncode == 0, stderr
    told = [json.loads(line) for line in stdout.splitlines()]
    for path in (run / "logs").glob("*.log"):
        own = [line["line"] for line in told if line["log"] == path.stem]
        assert own == path.read_text().splitlines()


def test_an_elastic_run_takes_hosts_that_join_and_goes_on_without_those_that_leave(three):
    """Half a cluster would stand idle, or a whole one wait for a single host."""
    changes = CHANGES | {"run__steps": ELASTIC_STEPS, "checkpoint__every_steps": 100}
    expected = trained_here(three, "whole-elastic", changes)
    for host in three.hosts[1:]:
        host.seedbed("cluster", "down")
    three.until_hosts(1)
    options = ("--workers", "1:3", "--placement", "strict-spread")
    run = three.submit("elastic", *options, **changes)
    assert three.until(run, lambda v: v["step"] >= 20)["ranks"] == 1
    three.up(2, 3)
    three.until(run, lambda v: v["ranks"] == 3 and v["state"] == "running", 300)
    time.sleep(3)
    three.hosts[1].kill()
    three.until(run, lambda v: v["ranks"] == 2 and v["state"] == "running", 300)
    three.finish(run, 400)
    check_whole(run, expected)
    resized = [event["ranks"] for event in read_events(run) if event["kind"] == "resized"]
    assert resized[0] == 1
    assert {2, 3} <= set(resized)
