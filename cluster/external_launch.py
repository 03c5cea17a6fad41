"""Ranks that torchrun or srun has started: every one of them is `seedbed train`, and they find each other.

Rank 0 prepares the run and supervises, with its own worker as a child; the others wait for its word and
become workers. Who started them starts them again.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedbed.errors import SeedbedError, UsageError
from seedbed.files import write_json
from training.launch import LocalLauncher, Worker, WorkerSpec
from training.launch.local import PARENT
from training.run_directory import read_json

WAIT_S = 600.0
"""Rank 0 may have to build a dataset first."""
POLL_S = 0.1
LAST_SLURM_STEP = 0xFFFFFFF0
"""Numbers from here on are those of batch scripts and the like."""


@dataclass(frozen=True)
class ExternalRank:
    """This process among those that were started together."""

    launcher: str
    rank: int
    num_ranks: int
    local_rank: int
    is_one_host: bool
    launch: str
    """Names this launch, and no other."""
    store: tuple[str, int, bool] | None = None
    """Of torchrun: host and port of a store, and whether it is there already or rank 0 opens it."""

    def environment(self, *, own_host: str) -> dict[str, str]:
        """How this rank's worker finds device and fellows."""
        network = {"SEEDBED_HOST": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
        return {
            "SEEDBED_LOCAL_RANK": str(self.local_rank),
            **(network if self.is_one_host else {"SEEDBED_HOST": own_host}),
        }


def rank_here(environment: Mapping[str, str] = os.environ) -> ExternalRank | None:
    """What torchrun or srun says of this process; None when neither started it, or it is alone."""
    found = _of_torchrun(environment) or _of_srun(environment)
    return found if found and found.num_ranks > 1 else None


def _of_torchrun(environment: Mapping[str, str]) -> ExternalRank | None:
    names = ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    if not all(name in environment for name in names):
        return None
    world = int(environment["WORLD_SIZE"])
    is_open = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return ExternalRank(
        "torchrun",
        int(environment["RANK"]),
        world,
        int(environment["LOCAL_RANK"]),
        int(environment.get("LOCAL_WORLD_SIZE", 0)) == world,
        f"{environment['TORCHELASTIC_RUN_ID']}.{environment.get('TORCHELASTIC_RESTART_COUNT', 0)}",
        (environment["MASTER_ADDR"], int(environment["MASTER_PORT"]), is_open),
    )


def _of_srun(environment: Mapping[str, str]) -> ExternalRank | None:
    job, step = environment.get("SLURM_JOB_ID"), environment.get("SLURM_STEP_ID", "")
    if job is None or not step.isdecimal() or int(step) >= LAST_SLURM_STEP:
        return None
    world = environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS", "1")
    hosts = environment.get("SLURM_STEP_NUM_NODES") or environment.get("SLURM_NNODES", "1")
    return ExternalRank(
        "srun",
        int(environment["SLURM_PROCID"]),
        int(world),
        int(environment.get("SLURM_LOCALID", 0)),
        hosts == "1",
        f"{job}.{step}.{environment.get('SLURM_RESTART_COUNT', 0)}",
    )


class ExternalLauncher(LocalLauncher):
    """The launcher of rank 0: its own worker is a child, the others are told where to join."""

    def __init__(self, place: ExternalRank, path: Path) -> None:
        self.place, self.path = place, path
        self._own: Worker | None = None
        self._store = _open_store(place) if place.store else None

    def make_room(self, num_ranks: int, is_given_up: Callable[[], bool]) -> int:
        if self._own is not None:
            raise SeedbedError(
                f"the workers have ended, and {self.place.launcher} is who starts them again",
                "torchrun --max-restarts=N, or srun again with the same command",
            )
        if num_ranks != self.place.num_ranks:
            raise UsageError(
                f"the run has {num_ranks} workers, those beside its ranks too, and "
                f"{self.place.launcher} started {self.place.num_ranks}, which all train",
                "set rl.critic_workers and rl.scoring_workers to 0, or start the run without "
                f"{self.place.launcher}",
            )
        return num_ranks

    def start(self, spec: WorkerSpec) -> Worker:
        if self._own is not None:
            return _Elsewhere(spec.name, self._own)
        environment = {**spec.environment, **self.place.environment(own_host=_own_host(self.place))}
        own = WorkerSpec(spec.name, spec.module, spec.arguments, spec.log, environment, spec.inherited_files)
        self._own = super().start(own)
        arguments = dict(zip(spec.arguments[::2], spec.arguments[1::2], strict=True))
        word = {**arguments, "environment": spec.environment}
        _tell(self.place, self.path, self._store, word)
        return self._own

    def refused(self, error: BaseException) -> None:
        """Have the others end, too, when rank 0 could not begin."""
        _tell(self.place, self.path, self._store, {"error": str(error)})

    def close(self) -> None:
        """Once all have heard it."""
        _word_path(self.place, self.path).unlink(missing_ok=True)


class _Elsewhere:
    """A rank that somebody else started: it stops and ends with rank 0."""

    def __init__(self, name: str, first: Worker) -> None:
        self.name, self.place, self._first = name, "", first

    def poll(self) -> int | None:
        return self._first.poll()

    def terminate(self) -> None:
        """Ranks agree on stopping by themselves."""

    def kill(self) -> None:
        """It cannot go on without rank 0."""

    def is_stopped(self) -> bool:
        return False

    def stack(self) -> str:
        return ""


def become_worker(place: ExternalRank, path: Path) -> None:
    """Wait for rank 0's word, then replace this process by the worker. Raises SeedbedError without one."""
    word = _hear(place, path)
    if "error" in word:
        raise SeedbedError(f"rank 0 could not begin: {word['error'].splitlines()[0]}")
    environment = {
        **os.environ,
        **word.pop("environment"),
        **place.environment(own_host=""),
        PARENT: str(os.getppid()),
    }
    arguments = [part for pair in {**word, "--rank": str(place.rank)}.items() for part in pair]
    command = [sys.executable, "-P", "-m", "training.worker", *arguments]
    sys.stdout.flush()
    os.execve(sys.executable, command, environment)


def default_run_dir(place: ExternalRank, recipe: str) -> Path:
    """Every rank has to come to the same name by itself."""
    if place.launcher != "srun":
        raise UsageError("ranks of torchrun cannot agree on a new name for the run", "give --run-dir")
    return Path("runs") / f"{Path(recipe).stem}-{place.launch.split('.')[0]}"


def _own_host(place: ExternalRank) -> str:
    import socket

    return place.store[0] if place.store else socket.gethostname()


def _word_path(place: ExternalRank, path: Path) -> Path:
    return path.parent / f".{path.name}.launch-{place.launch}.json"


def _open_store(place: ExternalRank) -> Any:
    from datetime import timedelta

    from torch.distributed import TCPStore

    assert place.store is not None
    host, port, is_open = place.store
    return TCPStore(
        host,
        port,
        place.num_ranks,
        is_master=place.rank == 0 and not is_open,
        timeout=timedelta(seconds=WAIT_S),
        wait_for_workers=False,
    )


def _tell(place: ExternalRank, path: Path, store: Any, word: dict[str, Any]) -> None:
    if store is not None:
        store.set(f"seedbed/{place.launch}", json.dumps(word))
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(_word_path(place, path), word)


def _hear(place: ExternalRank, path: Path) -> dict[str, Any]:
    if place.store:
        return dict(json.loads(_open_store(place).get(f"seedbed/{place.launch}")))
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if word := read_json(_word_path(place, path)):
            return word
        time.sleep(POLL_S)
    raise SeedbedError(
        f"rank {place.rank} heard nothing of rank 0 in {WAIT_S:g} s",
        "all ranks must see the same folder of runs; read what rank 0 said",
    )
