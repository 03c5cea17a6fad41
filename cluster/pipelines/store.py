"""Where artefacts are kept: a place for each, named after what it is made of.

    ARTEFACTS/train-gpt-demo-0123456789abcdef/
        stage.json     the command, its settings and inputs
        out            what it wrote, whole or on its way (a stage may give it another name)
        done.json      what came of it; written last: without it there is no artefact
        log.txt        what the command said
        lock           held by whoever makes it, and by the command itself

The lock is the kernel's: it ends with the processes that hold it, however they end.
"""

import fcntl
import os
import shutil
import socket
import time
from pathlib import Path
from typing import IO, Any

from cluster.pipelines.artefacts import Artefact, exists, identify, stamp_of
from seedbed.errors import DataError, UsageError
from seedbed.files import write_json
from training.run_directory import read_json

FOLDER = Path("runs") / "artefacts"
DONE = "done.json"
VERDICT = "failed.json"


def default_store() -> Path:
    """$SEEDBED_ARTEFACTS, or runs/artefacts."""
    return Path(os.environ.get("SEEDBED_ARTEFACTS") or FOLDER).expanduser().absolute()


class Place:
    """One place of the store."""

    def __init__(self, path: Path, file: str = "out") -> None:
        self.path, self.out = path, path / file
        self.log, self.answer = path / "log.txt", path / "answer.json"

    def done(self) -> dict[str, Any] | None:
        """What came of it, once it was made whole."""
        record = read_json(self.path / DONE)
        return record if record.get("digest") else None

    def unsound(self) -> str:
        """Why a finished artefact is not what was made: empty while it is, and while there is none."""
        record = self.done()
        if record is None or stamp_of(self.out) == record["stamp"]:
            return ""
        if not exists(self.out):
            return "is gone"
        try:
            found = identify(self.out, verify=True)
        except DataError as error:
            return f"is damaged ({error.message})"
        if found.digest != record["digest"]:
            return "has changed since it was made"
        # Copied, or touched: the same bytes. Whoever sees it first writes that down.
        write_json(self.path / DONE, {**record, "stamp": found.stamp})
        return ""

    def finish(self, record: dict[str, Any]) -> dict[str, Any]:
        """Have it be made, of what is at `out` now."""
        found: Artefact = identify(self.out)
        value = {
            **record,
            "kind": found.kind,
            "digest": found.digest,
            "stamp": found.stamp,
            "bytes": found.num_bytes,
            "time": time.time(),
        }
        write_json(self.path / DONE, value)
        return value

    def judge(self, code: int, message: str) -> None:
        """Write down that its training fails however often it is run."""
        write_json(self.path / VERDICT, {"code": code, "message": message, "time": time.time()})

    def verdict(self) -> dict[str, Any]:
        """What `judge` wrote; empty for a place that may be made."""
        return read_json(self.path / VERDICT)

    def clear(self) -> None:
        """Have it be made again, from nothing. For who makes it alone."""
        for name in (DONE, VERDICT):
            (self.path / name).unlink(missing_ok=True)
        if self.out.is_dir() and not self.out.is_symlink():
            shutil.rmtree(self.out)
        else:
            self.out.unlink(missing_ok=True)

    def try_lock(self, who: str = "") -> IO[str] | str:
        """The lock, or else who has it."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "lock").touch()
        file = open(self.path / "lock", "r+", encoding="utf-8")  # noqa: SIM115 - held by the caller
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = file.read().strip()
            file.close()
            return owner or "another process"
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()}" + (f" ({who})" if who else ""))
        file.flush()
        return file


def check_inputs(inputs: dict[str, Path], store: Path) -> dict[str, Artefact]:
    """What the paths that a user gave are, by content; UsageError for one that is not there.

    Files that were not touched since they were last looked at are not read again.
    """
    known = read_json(store / "inputs.json")
    found = {}
    for name, given in inputs.items():
        path = given.absolute()
        if not exists(path):
            raise UsageError(
                f"the input '{name}' is not at {given}", "correct its path in [inputs], or make it"
            )
        before = known.get(str(path), {})
        if before.get("stamp") == stamp_of(path):
            found[name] = Artefact(**before)
            continue
        found[name] = identify(path, verify=True)
        known[str(path)] = vars(found[name])
    if found:
        store.mkdir(parents=True, exist_ok=True)
        write_json(store / "inputs.json", known)
    return found
