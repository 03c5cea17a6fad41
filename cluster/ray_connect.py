"""Connecting to a Ray cluster: where it is, with a token, and what is wrong when nobody answers."""

import contextlib
import os
import socket
from pathlib import Path
from typing import Any

from cluster.ray_tokens import authenticated, home
from seedbed.errors import SeedbedError, UsageError
from training.run_directory import read_json

NAMESPACE = "seedbed"
CONNECT_S = 5.0
OURS = Path(__file__).resolve().parent.parent
QUIET = {
    # Ray reads these when it is imported or connects.
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


WORDLESS = {"RAY_BACKEND_LOG_LEVEL": "error"}
"""Of commands: Ray's core would warn on their stderr of what they say themselves."""

ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Of a cluster of one machine: Ray leaves 127.0.0.1 as it is, instead of looking for an outward address."""


class Unreachable(SeedbedError):
    """A cluster that does not answer; what runs on it is unknown."""


def state_path() -> Path:
    """What `cluster up` writes down of the node that it started here."""
    return home() / "cluster.json"


def find_address(given: str | None) -> str:
    """The cluster that is meant: `given`, else $RAY_ADDRESS, else the one that `cluster up` started here."""
    address = given or os.environ.get("RAY_ADDRESS") or read_json(state_path()).get("address")
    if not address:
        raise UsageError(
            "no cluster is known", "start one here with `seedbed cluster up`, or give --address HOST:PORT"
        )
    return str(address)


def import_ray() -> Any:
    """The ray package, made quiet. Raises UsageError without it."""
    for name, value in {**QUIET, **WORDLESS}.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise UsageError("a cluster needs the ray package", "pip install 'seedbed[ray]'") from error
    return ray


def connect(address: str, host: str | None = None) -> Any:
    """The ray package, connected to the cluster at `address`, as the node at `host` of it.

    Raises UsageError without a token, Unreachable when nobody answers there or the token is refused.
    """
    os.environ.update(authenticated())
    _refuse_silence(address)
    os.environ.update(ON_LOOPBACK if is_loopback(address) else {})
    ray = import_ray()
    if ray.is_initialized():
        return ray
    host = host or _host_here(address)
    more = {"_node_ip_address": host} if host and "://" not in address else {}
    try:
        if "://" not in address:
            _knock(address)
        # Ray puts the working directory before all else on its workers' path, where a user's own `data.py`
        # would stand in for ours.
        with contextlib.chdir(OURS):
            ray.init(
                address,
                namespace=NAMESPACE,
                logging_level="critical",
                log_to_driver=False,
                configure_logging=False,
                **more,
            )
    except ray.exceptions.AuthenticationError:
        raise Unreachable(
            f"the cluster at {address} refuses this token",
            "copy the cluster's own token file here, or set RAY_AUTH_TOKEN_PATH to it",
        ) from None
    except (OSError, ValueError, RuntimeError, AssertionError, ray.exceptions.RayError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Unreachable(
            f"no Ray cluster answers at {address}: {first}",
            "is it up, is this one of its hosts, and is the token its own?",
        ) from None
    return ray


def _knock(address: str) -> None:
    """Raises what is wrong with cluster or token at once, where `ray.init` would try again for a while."""
    from ray import _raylet

    client: Any = _raylet
    client.GcsClient(address=address).get_all_node_info(timeout=CONNECT_S)


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches HOST:PORT, or HOST."""
    return address.removeprefix("ray://").startswith(("127.", "localhost"))


def _host_here(address: str) -> str | None:
    """The address of the node that `cluster up` started on this machine, if it belongs to that cluster."""
    state = read_json(state_path())
    return str(state["host"]) if state.get("address") == address and state.get("host") else None


def is_silent(address: str) -> bool:
    """Whether nobody listens at HOST:PORT. Does not import Ray."""
    try:
        _refuse_silence(address)
    except Unreachable:
        return True
    return False


def _refuse_silence(address: str) -> None:
    """Raises Unreachable when nobody listens at HOST:PORT, which Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (host and colon and port.isdecimal()):
        raise UsageError(f"'{address}' is no address of a cluster", "give HOST:PORT, such as 10.0.0.1:6379")
    try:
        socket.create_connection((host, int(port)), CONNECT_S).close()
    except OSError as error:
        raise Unreachable(
            f"nobody answers at {address}: {error}",
            "is the cluster up (`seedbed cluster status`), and the address right?",
        ) from None
