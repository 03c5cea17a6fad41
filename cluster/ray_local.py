"""A Ray node on this machine: started with a token and on loopback, stopped without touching any other.

`up` starts `ray start --block` in a session of its own and remembers it; `down` ends that process, whose
children end with it, and then whatever still bears the mark of this node.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from cluster.ray_actors import birth_of, same_process
from cluster.ray_connect import ON_LOOPBACK, QUIET, connect, is_loopback, state_path
from cluster.ray_tokens import authenticated, home, make_token
from seedbed.errors import SeedbedError, UsageError
from seedbed.files import write_json
from training.run_directory import read_json

MARK = "SEEDBED_RAY_NODE"
START_S = 60.0
STOP_S = 6.0
"""For Ray to end by itself: a worker that is kept for ever, as the controller, does not."""
LOOPBACK = "127.0.0.1"
HEALTH = {
    # A host that does not answer is given up after some 25 s, one that refuses to after 8: workers that
    # wait for it are silent no longer than a hang would be borne.
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "4000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_health_check_initial_delay_ms": "2000",
    # Ray would give its workers, and with them training, the priority 15: the last on a busy host.
    "RAY_worker_niceness": "0",
}


def up(
    *,
    host: str = LOOPBACK,
    port: int = 0,
    join: str | None = None,
    num_cpus: int | None = None,
    num_gpus: int | None = None,
    dashboard_host: str = LOOPBACK,
    expose_dashboard: bool = False,
) -> dict[str, Any]:
    """Start a node: the first of a new cluster, or (`join`) one more of the cluster at that address.

    Returns {"address", "host", "token", "dashboard", "pid", "started"}; an existing node is left alone, and
    "started" is false. Raises UsageError when a flag would open what should be closed.
    """
    if dashboard_host not in (LOOPBACK, "localhost", "::1") and not expose_dashboard:
        raise UsageError(
            f"--dashboard-host {dashboard_host} lets other machines reach the dashboard",
            "leave it on loopback, with an ssh tunnel; or say --expose-dashboard too: it asks for the token",
        )
    if node := running_node():
        if join and node["address"] != join:
            raise UsageError(f"this machine is a node of {node['address']} already", "seedbed cluster down")
        return {**node, "started": False}
    # What a node that died has left behind.
    down()
    if join and ":" not in join:
        raise UsageError(f"--join {join} is no HOST:PORT", "give the address that `cluster up` printed there")
    token = _token(join)
    mark, port = secrets.token_hex(4), port or _free_port(host)
    temp = Path(f"/tmp/seedbed-ray-{mark}")
    address = join or f"{host}:{port}"
    dashboard = _free_port(LOOPBACK) if not join and has_dashboard() else 0
    command = [*_ray_command(), "start", "--block", "--disable-usage-stats", f"--node-ip-address={host}"]
    command += [f"--num-cpus={num_cpus}"] if num_cpus is not None else []
    command += [f"--num-gpus={num_gpus}"] if num_gpus is not None else []
    command += [f"--address={join}"] if join else _head_options(port, temp, dashboard_host, dashboard)
    log = home() / f"ray-{mark}.log"
    process = _spawn(command, log, {MARK: mark, **(ON_LOOPBACK if is_loopback(host) else {})})
    node = {
        "address": address,
        "host": host,
        "token": str(token),
        "dashboard": f"http://{dashboard_host}:{dashboard}" if dashboard else None,
        "pid": process.pid,
        "birth": birth_of(process.pid),
        "mark": mark,
        "temp": str(temp),
        "log": str(log),
        "is_head": join is None,
    }
    write_json(state_path(), node)
    _wait_until_up(process, node)
    return {**node, "started": True}


def _spawn(command: list[str], log: Path, more: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start it in a session of its own, with the token."""
    home().mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(log, "ab") as output:
        return subprocess.Popen(
            command,
            env={**os.environ, **QUIET, **HEALTH, **authenticated(), **more},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _head_options(port: int, temp: Path, dashboard_host: str, dashboard: int) -> list[str]:
    shown = [f"--dashboard-host={dashboard_host}", f"--dashboard-port={dashboard}"] if dashboard else []
    is_shown = "true" if dashboard else "false"
    return ["--head", f"--port={port}", f"--temp-dir={temp}", f"--include-dashboard={is_shown}", *shown]


def running_node() -> dict[str, Any] | None:
    """What `up` started here and is still there."""
    node = read_json(state_path())
    return node if node and same_process(int(node["pid"]), node["birth"]) else None


def down() -> dict[str, Any]:
    """End what `up` started here, and only that; returns {"address", "stopped": how many processes}."""
    node = read_json(state_path())
    if not node:
        return {"address": None, "stopped": 0}
    found = processes_of(node)
    if same_process(int(node["pid"]), node["birth"]):
        os.kill(int(node["pid"]), signal.SIGTERM)
        _wait_for(lambda: not processes_of(node), STOP_S)
    for pid in processes_of(node):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _wait_for(lambda: not processes_of(node), STOP_S)
    shutil.rmtree(node["temp"], ignore_errors=True)
    Path(node["log"]).unlink(missing_ok=True)
    state_path().unlink(missing_ok=True)
    return {"address": node["address"], "stopped": len(found)}


def processes_of(node: dict[str, Any]) -> list[int]:
    """Processes of the node that `up` started: by their session, mark or folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid() or not birth_of(int(entry.name)):
            continue
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            command = (entry / "cmdline").read_bytes()
            session = os.getsid(int(entry.name))
        except (OSError, ProcessLookupError):
            continue
        marked = f"{MARK}={node['mark']}".encode() in environment
        # Supervisors of runs bear the mark too, and have sessions of their own.
        is_ours = b"cluster.ray_supervisor" not in command and (marked or node["temp"].encode() in command)
        if session == int(node["pid"]) or is_ours:
            found.append(int(entry.name))
    return found


def has_dashboard() -> bool:
    """Whether what Ray's dashboard needs is installed: `pip install 'ray[default]'`."""
    from importlib.util import find_spec

    return all(find_spec(name) for name in ("aiohttp", "aiohttp_cors", "colorful", "opencensus", "grpc"))


def _token(join: str | None) -> Path:
    """The token of a new cluster, which may be made, or that of one to join, which must be there."""
    if join is None:
        return make_token()
    known = authenticated()
    return Path(known.get("RAY_AUTH_TOKEN_PATH", "$RAY_AUTH_TOKEN"))


def _ray_command() -> list[str]:
    # The script beside this Python, without the folder that a script puts on the path.
    return [sys.executable, "-P", "-c", "from ray.scripts.scripts import main; main()"]


def _free_port(host: str) -> int:
    with socket.socket() as listener:
        listener.bind((host, 0))
        return int(listener.getsockname()[1])


def _wait_until_up(process: subprocess.Popen[bytes], node: dict[str, Any]) -> None:
    """Until the node is known to the cluster; raises SeedbedError with what Ray said when it is not."""
    host, _, port = node["address"].rpartition(":")
    deadline = time.monotonic() + START_S
    text = ""
    while time.monotonic() < deadline and process.poll() is None:
        text = Path(node["log"]).read_text(encoding="utf-8", errors="replace")
        if "Ray runtime started" in text and _listens(host, int(port)):
            return
        time.sleep(0.1)
    down()
    lines = [line for line in text.splitlines() if line.strip()]
    raise SeedbedError(
        f"Ray did not start at {node['host']}: " + (" | ".join(lines[-3:]) or "it said nothing"),
        "free the port or choose another with --port; for --join, check address and token",
    )


def _listens(host: str, port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection((host, port), 1.0).close()
        return True
    return False


def _wait_for(condition: Any, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)


def describe(address: str) -> dict[str, Any]:
    """{"state", "address", "hosts": [{name, total, free}], "token", "dashboard"} of a cluster."""
    from cluster.ray_hosts import hosts

    ray = connect(address)
    node = read_json(state_path())
    is_own = node.get("address") == address
    return {
        "state": "up",
        "address": address,
        "hosts": [{"name": h.name, "total": h.total, "free": h.free} for h in hosts(ray)],
        "token": node.get("token") if is_own else None,
        "dashboard": node.get("dashboard") if is_own else None,
    }
