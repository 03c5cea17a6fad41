"""How a worker process computes, finds its fellows, hears that it should stop, and dies with its parent."""

import contextlib
import ctypes
import faulthandler
import json
import os
import signal
import socket
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from seedbed.errors import SeedbedError
from seedbed.files import write_json
from training import products
from training.engines.base import Group
from training.launch.local import PARENT

RENDEZVOUS_TIMEOUT_S = 300.0


class StopFlag:
    """Set by SIGTERM. The loop acts on it at the end of a step, once all ranks have agreed."""

    def __init__(self) -> None:
        self.is_set = False
        signal.signal(signal.SIGTERM, self._set)
        # Whoever started this process may have threads that block signals, and a child inherits that.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM, signal.SIGUSR1])
        # Ctrl-C reaches the whole terminal; the supervisor turns it into one SIGTERM for each worker.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _set(self, *_: Any) -> None:
        self.is_set = True


def answer_for_stacks() -> None:
    """Write the Python stacks of all threads, on SIGUSR1, to the file that the launcher named, if it did."""
    path = os.environ.get("SEEDBED_STACK_FILE")
    if path:
        file = open(path, "wb", buffering=0)  # noqa: SIM115 - written to from a signal handler, for good
        faulthandler.register(signal.SIGUSR1, file=file, all_threads=True)


def set_arithmetic() -> None:
    """The same bits again from the same work, as fast as that goes."""
    # Denormal numbers in a fresh model's moments make CPU arithmetic several times slower.
    torch.set_flush_denormal(True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Fresh memory is written before it is read; filling it first would show where it is not, on every tensor.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    products.use_faster()


def stop_when_parent_dies() -> None:
    """Have the kernel send SIGTERM when the process that launched this one dies, if it said that it is it.

    So no worker trains on unwatched.
    """
    parent_pid = os.environ.get(PARENT)
    if parent_pid is None or not sys.platform.startswith("linux"):
        return
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent_pid):
        os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def process_group(
    rank: int, num_ranks: int, device_type: str, rendezvous: Path, timeout_s: float, first: int = 0
) -> Any:
    """Join a group of this attempt: gloo on CPU, nccl on GPUs. Yields a `Group`.

    It is that of the attempt's workers from number `first` on. Worker 0 opens a store on a port that the
    kernel chooses and publishes it in the file `rendezvous`, so that no port is guessed.
    """
    device = own_device(first + rank, device_type)
    store = meeting_place(first + rank, num_ranks, rendezvous)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=dist.PrefixStore(f"workers from {first}", store) if first else store,
        rank=rank,
        world_size=num_ranks,
        timeout=timedelta(seconds=timeout_s),
    )
    yield Group(rank, num_ranks, device, store)
    # After a failure the worker ends at once instead: to leave in an orderly way would first tear the
    # connections down, and a fellow's complaint about that could be heard before the cause.
    dist.destroy_process_group()


def own_device(rank: int, device_type: str) -> torch.device:
    """The device of the worker number `rank`, which is the process's from now on."""
    if device_type != "cuda":
        return torch.device(device_type)
    device = torch.device(device_type, int(os.environ.get("SEEDBED_LOCAL_RANK", rank)))
    torch.cuda.set_device(device)
    return device


def meeting_place(rank: int, num_ranks: int, rendezvous: Path) -> dist.Store:
    """The attempt's store, of which rank 0 tells in the file `rendezvous`."""
    timeout = timedelta(seconds=RENDEZVOUS_TIMEOUT_S)
    if rank == 0:
        host = os.environ.get("SEEDBED_HOST", "127.0.0.1")
        # On this address alone: whoever reaches the store could take part in the run.
        listener = socket.create_server((host, 0), backlog=socket.SOMAXCONN)
        store = dist.TCPStore(
            host,
            listener.getsockname()[1],
            num_ranks,
            is_master=True,
            timeout=timeout,
            wait_for_workers=False,
            master_listen_fd=listener.detach(),
        )
        write_json(rendezvous, {"host": host, "port": store.port})
        return store
    deadline, parent = time.monotonic() + timeout.total_seconds(), os.getppid()
    while time.monotonic() < deadline:
        try:
            address = json.loads(rendezvous.read_bytes())
        except (OSError, ValueError):
            if os.getppid() != parent:
                raise SeedbedError(
                    f"rank {rank} waited for a rendezvous and its supervisor is gone"
                ) from None
            time.sleep(0.02)
            continue
        return dist.TCPStore(
            address["host"],
            address["port"],
            num_ranks,
            is_master=False,
            timeout=timeout,
            wait_for_workers=False,
        )
    raise SeedbedError(
        f"rank {rank} on {socket.gethostname()} found no rendezvous at {rendezvous}",
        "all ranks must see the same run directory",
    )
