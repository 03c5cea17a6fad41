"""The queue of a cluster's runs, as files: what a controller that starts anew finds and goes on with.

One file per run that waits or runs, replaced as a whole. Who submits adds one, the controller alone
changes and removes it.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster.placement import Placement
from seedbed.files import write_json
from training.run_directory import read_json

FOLDER = ".queue"
SUBMISSION = "submission.json"
"""In a run directory: what it asked the cluster for."""
RECORD = "supervisor.json"
"""In a run directory: which process supervises it, and the exit code that it ended with."""


@dataclass
class Entry:
    """A run that was submitted and is not over."""

    id: str
    run: str
    """Its run directory, absolute."""
    code: str
    """The folder that its processes import Seedbed from."""
    placement: dict[str, Any]
    priority: int = 0
    submitted: float = 0.0
    pid: int = 0
    """Of its supervisor, once it was started."""
    birth: str = ""
    starts: int = 0
    """Of supervisors, in a row without a new checkpoint between them."""
    newest_step: int = -1

    def wants(self) -> Placement:
        return Placement.read(self.placement)

    @property
    def run_path(self) -> Path:
        return Path(self.run)


class Queue:
    """The entries in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, entry: Entry) -> None:
        """Add or replace it, durably."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / f"{entry.id}.json", asdict(entry))

    def remove(self, entry: Entry) -> None:
        (self.folder / f"{entry.id}.json").unlink(missing_ok=True)

    def entries(self) -> list[Entry]:
        """First those that are first in line: by priority, then by when they were submitted."""
        found = [read_json(path) for path in self.folder.glob("*.json")]
        entries = [Entry(**value) for value in found if value.get("id")]
        return sorted(entries, key=lambda entry: (-entry.priority, entry.submitted, entry.id))

    def waiting(self) -> list[Entry]:
        """Those whose supervisor has not been started."""
        return [entry for entry in self.entries() if not entry.pid]
