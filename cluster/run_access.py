"""Reaching a run: through its directory where it is seen, else by asking the cluster's controller."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from cluster.output import note
from cluster.queue import SUBMISSION
from cluster.run_logs import new_lines, offsets_at
from cluster.watch import SILENT_S, run_status, unknown
from seedbed.errors import SeedbedError, UsageError
from training.run_directory import TERMINAL_STATES, RunDirectory, is_run, read_json

RUNS = Path("runs")
POLL_S = 0.2
RECONNECT_S = 1.0
ASK_EVERY_S = 10.0


class Access(Protocol):
    """What can be asked of a run; whatever raises OSError or Unreachable says nothing about the run."""

    path: str

    def status(self) -> dict[str, Any]: ...

    def lines(self, offsets: dict[str, int], names: list[str] | None) -> dict[str, Any]: ...

    def offsets_at(self, moment: float) -> dict[str, int]: ...

    def stop(self, *, now: bool) -> None: ...


class SeenRun:
    """A run whose directory is seen here."""

    def __init__(self, path: Path) -> None:
        self.directory, self.path = path, str(path)

    def status(self) -> dict[str, Any]:
        """As `run_status`, but "unknown" of one that is not heard of and whose cluster does not answer."""
        value = run_status(self.directory)
        if value["state"] != "queued" and (value["silent_s"] or 0.0) <= SILENT_S:
            return value
        from cluster.ray_connect import is_silent

        address = read_json(self.directory / SUBMISSION).get("address")
        if not address or not is_silent(address):
            return value
        was = "queued" if value["state"] == "queued" else f"{value['state']} at step {value['step']}"
        return {
            **value,
            "state": "unknown",
            "message": f"its cluster at {address} does not answer; when last heard of, it was {was}",
        }

    def lines(self, offsets: dict[str, int], names: list[str] | None) -> dict[str, Any]:
        return new_lines(self.directory, offsets, names)

    def offsets_at(self, moment: float) -> dict[str, int]:
        return offsets_at(self.directory, moment)

    def stop(self, *, now: bool) -> None:
        RunDirectory(self.directory).request_stop(now=now)


class DistantRun:
    """A run on a cluster whose storage is not seen here."""

    def __init__(self, path: str, address: str) -> None:
        self.path, self.address = path, address

    def _ask(self, method: str, *arguments: Any) -> Any:
        from cluster.ray_connect import Unreachable, connect
        from cluster.ray_controller import ask, find_controller

        ray = connect(self.address)
        controller = find_controller(ray)
        if controller is None:
            raise Unreachable(
                f"the cluster at {self.address} has no controller", "nothing was submitted to it yet"
            )
        return ask(ray, getattr(controller, method).remote(self.path, *arguments))

    def status(self) -> dict[str, Any]:
        return self._ask("watch")

    def lines(self, offsets: dict[str, int], names: list[str] | None) -> dict[str, Any]:
        return self._ask("read", offsets, names)

    def offsets_at(self, moment: float) -> dict[str, int]:
        return self._ask("start_offsets", moment)

    def stop(self, *, now: bool) -> None:
        self._ask("stop", now)


def find_run(run: str, address: str | None = None) -> Access:
    """The run that `run` means: a directory, a name in ./runs, or a path on the hosts of a cluster.

    Raises UsageError when it is none, and no cluster could know it.
    """
    for path in (Path(run), RUNS / run):
        if is_run(path):
            return SeenRun(path)
    from cluster.ray_connect import find_address

    try:
        return DistantRun(run, find_address(address))
    except UsageError:
        raise UsageError(
            f"{run} is not a run directory",
            "give one (seedbed list), or --address of the cluster that has it",
        ) from None


def status_of(access: Access) -> dict[str, Any]:
    """Its status; "unknown" when it cannot be fetched, which is no news of the run. UsageError is raised."""
    try:
        return access.status()
    except UsageError:
        raise
    except (SeedbedError, OSError) as error:
        return unknown(access.path, getattr(error, "message", "") or str(error))


def follow(
    access: Access,
    names: list[str] | None,
    offsets: dict[str, int],
    tell: Callable[[dict[str, Any]], None],
    *,
    to_the_end: bool,
) -> None:
    """Tell every line from `offsets` on, once; `to_the_end`: until the run is over, whatever breaks."""
    is_lost = False
    silence = Silence(access)
    while True:
        try:
            found = access.lines(offsets, names)
        except UsageError:
            raise
        except (SeedbedError, OSError) as error:
            if not to_the_end:
                raise
            if not is_lost:
                note(f"! logs cannot be read now, trying again: {getattr(error, 'message', '') or error}")
            is_lost = True
            time.sleep(RECONNECT_S)
            continue
        is_lost = False
        for line in found["lines"]:
            tell(line)
        offsets = found["offsets"]
        if not found["lines"] and not found["more"]:
            if found["is_over"] or not to_the_end:
                return
            silence.go_on()
            time.sleep(POLL_S)


class Silence:
    """Says once that nothing is known of a run that is waited for; asks now and then."""

    def __init__(self, access: Access) -> None:
        self._access, self._asked, self._is_told = access, time.monotonic(), False

    def go_on(self) -> None:
        """To be called while nothing comes."""
        if time.monotonic() - self._asked > ASK_EVERY_S:
            self.hear(status_of(self._access))

    def hear(self, status: dict[str, Any]) -> None:
        """A status that was asked for."""
        self._asked = time.monotonic()
        is_unknown = status["state"] == "unknown"
        if is_unknown and not self._is_told:
            note(f"! {status['name']}: {status['message']}; still waiting (Ctrl-C ends the waiting alone)")
        self._is_told = is_unknown


def wait_until_over(access: Access, timeout_s: float | None = None) -> dict[str, Any]:
    """Its status once it is over, or when the time is; being unreachable is no end."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    silence = Silence(access)
    while True:
        status = status_of(access)
        silence.hear(status)
        is_over = status["state"] in TERMINAL_STATES and (status["exit_code"] is not None or not status["id"])
        if is_over or (deadline is not None and time.monotonic() > deadline):
            return status
        time.sleep(POLL_S)
