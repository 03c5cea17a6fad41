"""A copy of a run behind an fsspec URL, from which it goes on when the disk of its run directory is lost.

    URL/checkpoints/step-N/...   each finished step: its files, read back and hashed, then its manifest
    URL/config.toml, recipe.json, metrics.jsonl, events.jsonl ...   what the run directory holds beside them

A step without a manifest does not exist, there as here. Copying runs in a thread of rank 0; it can neither
slow nor stop the run, and says what went wrong in the run's events.
"""

import json
import os
import queue
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data.storage import filesystem, storage_errors
from seedbed.errors import CheckpointError, DataError, SeedbedError, UsageError
from seedbed.files import SliceHasher
from training.checkpoint import layout
from training.checkpoint.reader import Checkpoint

RECORDS = (
    "recipe.json", "plan.json", "passed-over.json", "metrics.jsonl", "events.jsonl", "samples.jsonl",
    # Last: it makes a folder a run.
    "config.toml",
)  # fmt: skip
BLOCK = 1 << 20

Tell = Callable[..., None]
"""(kind, message, **details): appends an event."""


class RemoteCopy:
    """Keeps the copy at `url` as new as the storage allows."""

    def __init__(self, run_dir: Path, url: str, tell: Tell) -> None:
        self.run_dir, self.url, self._tell = run_dir, url.rstrip("/"), tell
        self._steps: queue.Queue[int | None] = queue.Queue()
        self._thread: threading.Thread | None = None

    def push(self, step: int) -> None:
        """Copy a finished step, and the records; returns at once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="remote-copy", daemon=True)
            self._thread.start()
        self._steps.put(step)

    def close(self, meanwhile: Callable[[], None]) -> None:
        """Wait until the newest step is there, or has failed; calls `meanwhile` every second."""
        if self._thread is not None:
            self._steps.put(None)
            while self._thread.is_alive():
                meanwhile()
                self._thread.join(1.0)
            self._thread = None

    def _run(self) -> None:
        while (step := self._newest()) is not None:
            try:
                num_bytes = self._copy(step)
            except Exception as error:
                self._tell("copy_failed", f"step {step} was not copied to {self.url}: {error}", step=step)
            else:
                message = f"step {step} is copied to {self.url}, and proved there"
                self._tell("copied", message, step=step, bytes=num_bytes)

    def _newest(self) -> int | None:
        """The newest step that waits; None once all are done."""
        step = self._steps.get()
        while step is not None and not self._steps.empty():
            following = self._steps.get()
            if following is None:
                # It ends after this one.
                self._steps.put(None)
                break
            step = following
        return step

    def _copy(self, step: int) -> int:
        source = Checkpoint.open(layout.step_dir(self.run_dir, step))
        # Held by links of its own: retention may delete the step meanwhile.
        held = source.path.with_name(f".copying-{source.path.name}")
        shutil.rmtree(held, ignore_errors=True)
        shutil.copytree(source.path, held, copy_function=_link)
        try:
            self._upload(source, held)
        finally:
            shutil.rmtree(held, ignore_errors=True)
        return source.num_bytes

    def _upload(self, source: Checkpoint, held: Path) -> None:
        with storage_errors(self.url):
            fs, root = filesystem(self.url)
            fs.invalidate_cache()
            target = f"{root}/checkpoints/{source.path.name}"
            manifest = f"{target}/{layout.MANIFEST}"
            own = (held / layout.MANIFEST).read_bytes()
            if not fs.exists(manifest) or fs.cat_file(manifest) != own:
                if fs.exists(target):
                    # What bore this number was abandoned, or cut short.
                    fs.rm(target, recursive=True)
                fs.makedirs(target, exist_ok=True)
                for file in source.manifest["files"]:
                    there = f"{target}/{file['name']}"
                    fs.put_file(str(held / file["name"]), there)
                    _prove(fs, there, file)
                fs.put_file(str(held / layout.MANIFEST), manifest)
            for name in RECORDS:
                if (self.run_dir / name).exists():
                    fs.put_file(str(self.run_dir / name), f"{root}/{name}")
            kept = {source.path.name, *(f"step-{number}" for number in layout.list_steps(self.run_dir))}
            for entry in fs.ls(f"{root}/checkpoints", detail=False):
                if entry.rstrip("/").rpartition("/")[2] not in kept:
                    fs.rm(entry, recursive=True)


def check(url: str, run_id: str) -> None:
    """Raises SeedbedError when `url` cannot be written, or holds another run: before one relies on it."""
    with storage_errors(url):
        fs, root = filesystem(url.rstrip("/"))
        if (
            fs.exists(f"{root}/recipe.json")
            and json.loads(fs.cat_file(f"{root}/recipe.json")).get("id") != run_id
        ):
            raise UsageError(
                f"{url} holds the copy of another run", "give checkpoint.copy_to a place of its own"
            )
        fs.makedirs(root, exist_ok=True)
        fs.pipe_file(f"{root}/.writable", b"")
        fs.rm(f"{root}/.writable")


def fetch(url: str, run_dir: Path) -> int:
    """A run directory from the copy at `url`, with its newest sound step; returns that step.

    Raises UsageError when `run_dir` is in use, and CheckpointError when no step there is sound.
    """
    if run_dir.exists() and any(run_dir.iterdir()):
        raise UsageError(f"{run_dir} is not empty", "give a folder that does not exist yet")
    problems = []
    with storage_errors(url):
        fs, root = filesystem(url.rstrip("/"))
        if not fs.exists(f"{root}/config.toml"):
            raise UsageError(f"{url} holds no copy of a run", "give the run's checkpoint.copy_to")
        steps = [Path(entry.rstrip("/")).name for entry in fs.ls(f"{root}/checkpoints", detail=False)]
        numbers = sorted(int(name.removeprefix("step-")) for name in steps if name.startswith("step-"))
        for number in reversed(numbers):
            target = layout.step_dir(run_dir, number)
            target.mkdir(parents=True)
            try:
                for entry in fs.ls(f"{root}/checkpoints/step-{number}", detail=False):
                    fs.get_file(entry, str(target / Path(entry).name))
                Checkpoint.open(target).verify()
            except (DataError, FileNotFoundError) as error:
                problems.append(str(getattr(error, "message", error)))
                layout.remove_step(target)
                continue
            for name in RECORDS:
                if fs.exists(f"{root}/{name}"):
                    fs.get_file(f"{root}/{name}", str(run_dir / name))
            return number
    found = "; ".join(problems) or "none at all"
    raise CheckpointError(f"{url} holds no sound step: {found}", "use another copy")


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _prove(fs: Any, path: str, receipt: dict[str, Any]) -> None:
    """Raises SeedbedError when what lies at `path` is not what the receipt is of."""
    hasher = SliceHasher(receipt["slice_bytes"])
    with fs.open(path, "rb") as file:
        while block := file.read(BLOCK):
            hasher.update(block)
    if hasher.num_bytes != receipt["bytes"] or hasher.slices() != receipt["slices"]:
        raise SeedbedError(f"{path} was read back as other bytes than were written", "look at that storage")
