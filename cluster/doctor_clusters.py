"""Whether the Ray clusters that this machine takes part in are closed, found out by trying to get in."""

import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from cluster.ray_connect import import_ray, state_path
from cluster.ray_tokens import MODE, PATH, VALUE, exposure
from seedbed.errors import UsageError
from training.run_directory import read_json

PROBE_S = 20.0
HTTP_S = 3.0
PROBE = """
import sys
from ray._raylet import GcsClient
print("open", len(GcsClient(address=sys.argv[1]).get_all_node_info(timeout=5)))
"""
_FLAG = re.compile(r"--(?:gcs[-_]server[-_]port|node[-_]ip[-_]address)=(\S+)")


def findings() -> Iterator[tuple[str, str, str]]:
    """(state, what was found, what to do) of every cluster that is known or runs here."""
    node = read_json(state_path())
    addresses = {str(node["address"])} if node else set()
    addresses |= {os.environ["RAY_ADDRESS"]} if ":" in os.environ.get("RAY_ADDRESS", "") else set()
    addresses |= set(running_here())
    if not addresses:
        yield "ok", "none is known", ""
        return
    if node and (path := Path(node["token"])).is_file() and (exposed := exposure(path)):
        yield (
            "failed",
            f"the token {path} {exposed}",
            f"chmod 600 {path}, and start the cluster with a new one",
        )
    try:
        import_ray()
    except UsageError as error:
        yield "warning", error.message, error.fix
        return
    for address in sorted(addresses):
        if is_open(address):
            fix = "stop it, and start it with `seedbed cluster up`, or with RAY_AUTH_MODE=token"
            yield "failed", f"the cluster at {address} takes anybody in, without a token", fix
        else:
            yield "ok", f"the cluster at {address} asks for its token", ""
    if node and node.get("dashboard") and answers_anybody(node["dashboard"]):
        yield (
            "failed",
            f"the dashboard at {node['dashboard']} answers without a token",
            "seedbed cluster down",
        )


def running_here() -> Iterator[str]:
    """HOST:PORT of clusters whose head is this machine."""
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdecimal() else []
        except OSError:
            continue
        if not words or not words[0].endswith(b"gcs_server"):
            continue
        found = dict(
            word.decode(errors="replace").lstrip("-").replace("-", "_").split("=", 1)
            for word in words
            if _FLAG.match(word.decode(errors="replace"))
        )
        if "gcs_server_port" in found:
            yield f"{found.get('node_ip_address', '127.0.0.1')}:{found['gcs_server_port']}"


def is_open(address: str) -> bool:
    """Whether the cluster's own records can be read without any token."""
    hidden = {name: value for name, value in os.environ.items() if name not in (PATH, VALUE)}
    try:
        tried = subprocess.run(
            [sys.executable, "-P", "-c", PROBE, address.removeprefix("ray://")],
            # Where no token lies either.
            env={**hidden, MODE: "disabled", "HOME": "/nonexistent"},
            capture_output=True,
            text=True,
            timeout=PROBE_S,
        )
    except subprocess.TimeoutExpired:
        return False
    return tried.stdout.startswith("open")


def answers_anybody(url: str) -> bool:
    """Whether the dashboard tells of its jobs without a token."""
    try:
        with urllib.request.urlopen(f"{url}/api/jobs/", timeout=HTTP_S) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
