"""Saving in the background: the loop waits only while tensors are copied to host memory.

Each rank writes its own shards into `step-N.tmp-<nonce>/`, fsyncs them and leaves a receipt.
Rank 0 waits for all receipts, writes the manifest over them, fsyncs and renames the directory.
A save that fails leaves every earlier checkpoint as it was.
"""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from seedbed.errors import SeedbedError
from seedbed.files import digest_of, fsync_dir, hash_file, write_atomic, write_json
from training.checkpoint import layout
from training.checkpoint.reader import FORMAT, VERSION
from training.checkpoint.state_digest import digests, shown, together
from training.checkpoint.tensors import DTYPES, write_tensors
from training.engines.base import Shard
from training.fence import refuse_superseded

POLL_S = 0.01
WAIT_S = 1.0
# Well inside the time-out of collectives, so that a part that does not come is named as the cause.
RECEIPTS_TIMEOUT_S = 300.0


@dataclass
class SaveResult:
    """What became of one save: `error` is empty when the step is on disk."""

    step: int
    blocked_s: float
    written_s: float = 0.0
    num_bytes: int = 0
    error: str = ""
    state: str = ""
    """The digest of what was saved, as `training.checkpoint.state_digest` shows it."""
    trouble: int | None = None
    """The step at which spikes began that may send the run back."""
    best: tuple[float, int] | None = None
    """Validation loss and step of the best checkpoint, once this one is on disk."""


class Apart(Protocol):
    """Workers that are no ranks and write parts of a step, numbered after the ranks' own."""

    num_parts: int

    def save(self, step: int, nonce: str) -> None:
        """Begin; all ranks call it."""
        ...

    def save_failure(self) -> str | None:
        """None while the parts are being written; then why that failed, or "". All ranks call it."""
        ...


@dataclass
class Saver:
    """Writes one step at a time for one rank of a run.

    `on_done` is called on rank 0, from the writing thread, with the result of every save.
    `attachments` are files stored with each step (configuration, tokenizer).
    """

    run_dir: Path
    rank: int
    num_ranks: int
    nonce: str
    attachments: dict[str, bytes]
    on_done: Callable[[SaveResult], None]
    apart: Apart | None = None
    """Who writes more parts, and is no rank."""
    own_failure: str = ""
    """Why this rank's part of the current save failed; the loop tells rank 0 through a reduction."""
    _thread: threading.Thread | None = None
    _buffers: dict[tuple[str, tuple[int, ...]], Tensor] = field(default_factory=dict)
    _abort: threading.Event = field(default_factory=threading.Event)
    _written: threading.Event = field(default_factory=threading.Event)

    def save(self, shards: Iterable[Shard], manifest: dict[str, Any], started: float | None = None) -> float:
        """Start saving; returns the seconds for which the caller was blocked, since `started`.

        `manifest` holds what is known before writing: step, position, hashes, versions, trainer state.
        """
        started = time.perf_counter() if started is None else started
        self.wait()
        if self.apart:
            self.apart.save(manifest["step"], self.nonce)
        copies = self._copies(shards)
        self.own_failure = ""
        self._abort.clear()
        self._written.clear()
        blocked_s = time.perf_counter() - started
        self._thread = threading.Thread(
            target=self._run, args=(copies, manifest, blocked_s), name="checkpoint-writer", daemon=True
        )
        self._thread.start()
        return blocked_s

    def _copies(self, shards: Iterable[Shard]) -> list[tuple[Shard, Tensor]]:
        """The shards with their values in host memory, in buffers that are kept from save to save.

        Fresh memory would be handed out page by page while the loop waits, and a GPU copies into memory that
        is pinned at several times the speed.
        """
        copies, devices = [], set()
        for shard in shards:
            values = shard.local.detach()
            if not values.numel() and shard.global_shape:
                continue
            buffer = self._buffers.get((shard.name, shard.offsets))
            if buffer is None or buffer.shape != values.shape or buffer.dtype != values.dtype:
                buffer = _host_memory(values)
                self._buffers[shard.name, shard.offsets] = buffer
            buffer.copy_(values, non_blocking=True)
            copies.append((shard, buffer))
            devices |= {values.device} if values.is_cuda else set()
        for device in devices:
            torch.cuda.synchronize(device)
        return copies

    @property
    def _num_parts(self) -> int:
        return self.num_ranks + (self.apart.num_parts if self.apart else 0)

    @property
    def is_busy(self) -> bool:
        """Whether something is being written beside the loop."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Until the save under way is finished, well or badly; calls `meanwhile` every second."""
        if self._thread is not None:
            while self._thread.is_alive():
                meanwhile()
                self._thread.join(WAIT_S)
            self._thread = None

    def wait_written(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Until this rank's own part of the save under way, and those apart, are on disk or have failed."""
        while self._thread is not None and not self._written.wait(WAIT_S):
            meanwhile()
        if self._thread is not None and self.apart:
            # All ranks ask, whatever became of their own parts.
            while (failure := self.apart.save_failure()) is None:
                meanwhile()
                time.sleep(POLL_S)
            self.own_failure = self.own_failure or failure

    def abort(self) -> None:
        """Give up the save under way: another rank could not write its part."""
        self._abort.set()

    def _run(self, copies: list[tuple[Shard, Tensor]], manifest: dict[str, Any], blocked_s: float) -> None:
        best = manifest.get("trainer", {}).get("best")
        trouble = manifest.get("trainer", {}).get("guards", {}).get("began")
        result = SaveResult(
            manifest["step"],
            blocked_s,
            best=tuple(best) if best else None,
            trouble=trouble[0] if trouble else None,
        )
        started = time.perf_counter()
        temporary = layout.temporary_dir(self.run_dir, manifest["step"], self.nonce)
        try:
            self._write_part(temporary, copies)
            self._written.set()
            if self.rank == 0:
                result.num_bytes, result.state = self._commit(temporary, manifest)
        except Exception as error:
            # Whatever it was, it must reach the loop: nobody else hears what happens in this thread.
            self.own_failure = result.error = str(error) or type(error).__name__
            with contextlib.suppress(OSError):
                self._words(temporary, self.rank).write_text(self.own_failure, encoding="utf-8")
        finally:
            self._written.set()
        result.written_s = time.perf_counter() - started
        if self.rank == 0:
            self.on_done(result)

    def remove_leftovers(self) -> None:
        """Delete the parts of a failed save; to be called when no rank is writing any more."""
        layout.remove_leftovers(self.run_dir)

    def _write_part(self, temporary: Path, copies: list[tuple[Shard, Tensor]]) -> None:
        temporary.mkdir(parents=True, exist_ok=True)
        name = f"rank-{self.rank}.safetensors"
        receipt, ranges = write_tensors(temporary / name, _distinct(copies))
        pieces = [
            {
                "name": shard.name,
                "dtype": DTYPES[values.dtype],
                "shape": list(shard.global_shape),
                "piece": {
                    "file": name,
                    "offsets": list(shard.offsets),
                    "shape": list(values.shape),
                    "bytes": byte_range,
                },
            }
            for (shard, values), byte_range in zip(copies, ranges, strict=True)
        ]
        sums = digests(shard._replace(local=values) for shard, values in copies)
        write_json(
            self._receipt(temporary, self.rank),
            {"file": {"name": name, **receipt}, "pieces": pieces, "state": sums},
        )

    def _words(self, temporary: Path, rank: int) -> Path:
        """Why a part is not there."""
        return temporary / f"rank-{rank}.failed"

    def _receipt(self, temporary: Path, rank: int) -> Path:
        return temporary / f"rank-{rank}.receipt.json"

    def _commit(self, temporary: Path, manifest: dict[str, Any]) -> tuple[int, str]:
        """Make the step of all parts; returns (its size, the digest of its state)."""
        receipts = self._gather_receipts(temporary)
        attempt = manifest.get("attempt", 0)
        refuse_superseded(self.run_dir, attempt)
        files = [receipt["file"] for receipt in receipts]
        tensors: dict[str, Any] = {}
        for receipt in receipts:
            for entry in receipt["pieces"]:
                whole = tensors.setdefault(
                    entry["name"], {"dtype": entry["dtype"], "shape": entry["shape"], "pieces": []}
                )
                whole["pieces"].append(entry["piece"])
        for name, content in self.attachments.items():
            write_atomic(temporary / name, content)
            files.append({"name": name, **hash_file(temporary / name)})
        for rank in range(self._num_parts):
            self._receipt(temporary, rank).unlink()
        sums = together(receipt["state"] for receipt in receipts)
        body = {
            "format": FORMAT,
            "version": VERSION,
            **manifest,
            "files": files,
            "tensors": {name: {**entry, "sum": f"{sums[name]:016x}"} for name, entry in tensors.items()},
        }
        write_json(temporary / layout.MANIFEST, {**body, "digest": digest_of(body)})
        layout.make_way(self.run_dir, manifest["step"], attempt)
        temporary.rename(layout.step_dir(self.run_dir, manifest["step"]))
        fsync_dir(layout.checkpoints_dir(self.run_dir))
        return sum(file["bytes"] for file in files), shown(sums)

    def _gather_receipts(self, temporary: Path) -> list[dict[str, Any]]:
        deadline = time.monotonic() + RECEIPTS_TIMEOUT_S
        paths = [self._receipt(temporary, rank) for rank in range(self._num_parts)]
        while missing := [path.name for path in paths if not path.exists()]:
            for words in temporary.glob("*.failed"):
                raise SeedbedError(f"{words.stem}: {words.read_text(encoding='utf-8')}")
            if self._abort.is_set():
                raise SeedbedError("another rank could not write its part")
            if time.monotonic() > deadline:
                raise SeedbedError(f"no {', '.join(missing)} after {RECEIPTS_TIMEOUT_S:.0f} s")
            time.sleep(POLL_S)
        return [json.loads(path.read_bytes()) for path in paths]


def _distinct(copies: list[tuple[Shard, Tensor]]) -> list[tuple[str, Tensor]]:
    """Names for a file: a rank's second part of a tensor, and any after it, by place too."""
    names: set[str] = set()
    named = []
    for shard, values in copies:
        place = ",".join(map(str, shard.offsets))
        named.append((f"{shard.name}@{place}" if shard.name in names else shard.name, values))
        names.add(shard.name)
    return named


def library_versions(*more: str) -> dict[str, str]:
    """Versions of what a run's bits depend on: always, and of the packages `more`."""
    return {name: version(name) for name in ("seedbed", "torch", "numpy", "tokenizers", *more)} | {
        "torch_build": torch.__version__
    }


def _host_memory(values: Tensor) -> Tensor:
    """Memory of the host for such values, pinned for a GPU's where the system allows so much of it."""
    if values.is_cuda:
        with contextlib.suppress(RuntimeError):
            return torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return torch.empty(values.shape, dtype=values.dtype)
