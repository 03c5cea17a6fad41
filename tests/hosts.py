"""Hosts of a cluster as namespaces of this machine: each with its address, Ray node and mount of the runs.

Needs root and `ip`. What the hosts share is one folder, which each of them mounts at `folder/runs`.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.cluster_runs import LocalCluster, assignments
from tests.conftest import SEEDBED, Outcome, run_command

HERE = os.getpid() % 10_000
SUBNET = f"10.{70 + HERE % 100}.0"


def unavailable() -> str:
    """Why there can be no such hosts here; empty when there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not all(shutil.which(name) for name in ("ip", "nsenter", "unshare", "mount")):
        return "network namespaces need ip, nsenter, unshare and mount"
    name = f"sb{HERE}try"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if tried.returncode:
        return f"network namespaces are not to be had: {tried.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return ""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


class Host:
    """One of them: commands run in its namespaces, everything in it can be killed, its cable pulled."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder, self.number = folder, number
        self.name, self.cable = f"sb{HERE}h{number}", f"sb{HERE}c{number}"
        self.address = f"{SUBNET}.{number}"
        inner = f"sb{HERE}i{number}"
        ip("netns", "add", self.name)
        ip("link", "add", self.cable, "type", "veth", "peer", "name", inner)
        ip("link", "set", inner, "netns", self.name)
        ip("link", "set", self.cable, "master", f"sb{HERE}br", "up")
        for words in (
            ["addr", "add", f"{self.address}/24", "dev", inner],
            ["link", "set", inner, "up"],
            ["link", "set", "lo", "up"],
        ):
            ip("-n", self.name, *words)
        # Holds the mount namespace, which has no name.
        self.holder = subprocess.Popen(
            [
                "ip",
                "netns",
                "exec",
                self.name,
                "unshare",
                "--mount",
                "--propagation",
                "private",
                "sleep",
                "infinity",
            ],
            stdin=subprocess.DEVNULL,
        )
        time.sleep(0.2)
        self.mount()

    def mount(self) -> None:
        self.inside("mount", "--bind", str(self.folder / "storage"), str(self.folder / "runs"))

    def unmount(self) -> None:
        self.inside("umount", str(self.folder / "runs"))

    def command(self, *command: str) -> list[str]:
        # `nsenter --wd` would stay in the mounts outside.
        there = ["sh", "-c", f'cd "{self.folder}" && exec "$@"', "sh"]
        spaces = [f"--net=/run/netns/{self.name}", f"--mount=/proc/{self._held()}/ns/mnt"]
        return ["nsenter", *spaces, *there, *command]

    def inside(self, *command: str) -> None:
        subprocess.run(self.command(*command), check=True, capture_output=True, text=True)

    def _held(self) -> int:
        """`unshare` and `ip netns exec` replace themselves, so that it is the sleeper."""
        return self.holder.pid

    @property
    def environment(self) -> dict[str, str]:
        return {
            "SEEDBED_HOME": str(self.folder / f"home-{self.number}"),
            "RAY_AUTH_TOKEN_PATH": str(self.folder / "token"),
            "RAY_ADDRESS": "",
        }

    def seedbed(self, *arguments: str, timeout_s: float = 180) -> Outcome:
        return run_command(
            self.command(str(SEEDBED), *arguments), timeout_s=timeout_s, cwd=self.folder, env=self.environment
        )

    def json(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        outcome = self.seedbed(*arguments, "--json")
        assert outcome.code == code, outcome.stdout + outcome.stderr
        return json.loads(outcome.stdout)

    def pids(self) -> list[int]:
        """Of everything that runs on it, but for what holds its namespace."""
        found = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True).stdout
        return [int(pid) for pid in found.split() if int(pid) != self.holder.pid]

    def kill(self) -> None:
        """As if the power was cut, but for the disk."""
        while pids := self.pids():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def cut(self) -> None:
        ip("link", "set", self.cable, "down")

    def heal(self) -> None:
        ip("link", "set", self.cable, "up")

    def close(self) -> None:
        self.kill()
        self.holder.kill()
        self.holder.wait()
        subprocess.run(["ip", "link", "del", self.cable], capture_output=True)
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True)


class Hosts(LocalCluster):
    """`number` hosts, of which the first is the head; runs are read where the hosts' storage lies."""

    def __init__(self, folder: Path, number: int, num_cpus: int) -> None:
        super().__init__(folder)
        self.num_cpus = num_cpus
        for name in ("storage", "runs"):
            (folder / name).mkdir()
        ip("link", "add", f"sb{HERE}br", "type", "bridge")
        ip("addr", "add", f"{SUBNET}.254/24", "dev", f"sb{HERE}br")
        ip("link", "set", f"sb{HERE}br", "up")
        self.hosts: list[Host] = []
        for index in range(number):
            self.hosts.append(Host(folder, index + 1))
        self.head = self.hosts[0]
        self.address = ""

    def up(self, *numbers: int) -> None:
        """Start the nodes of these hosts (1 is the head) that are not up."""
        for number in numbers:
            host = self.hosts[number - 1]
            join = ["--join", self.address] if number > 1 else []
            value = host.json(
                "cluster", "up", "--host", host.address, "--num-cpus", str(self.num_cpus), *join
            )
            self.address = value["address"]

    def until_hosts(self, number: int, timeout_s: float = 60) -> None:
        """Until the cluster has so many."""
        deadline = time.monotonic() + timeout_s
        while len(self.head.json("cluster", "status")["hosts"]) != number:
            assert time.monotonic() < deadline
            time.sleep(1)

    def submit(self, name: str, *options: str, **changes: Any) -> Path:
        self.head.json("submit", "gpt-demo", "--run-dir", f"runs/{name}", *options, *assignments(**changes))
        return self.folder / "storage" / name

    def close(self) -> None:
        for host in self.hosts:
            host.close()
        subprocess.run(["ip", "link", "del", f"sb{HERE}br"], capture_output=True)
        for state in self.folder.glob("home-*/cluster.json"):
            shutil.rmtree(json.loads(state.read_text())["temp"], ignore_errors=True)
