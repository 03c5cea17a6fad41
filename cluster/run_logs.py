"""The logs of a run, which are files of its directory: read by offset, so that no line is lost or doubled.

`logs/rank-N.log` are the workers', `logs/supervisor.log` is what the run tells of itself. `logs/index.jsonl`
says how long each was at which time, for `--since`.
"""

import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from cluster.queue import RECORD
from seedbed.files import append_line, read_lines
from training.run_directory import TERMINAL_STATES, RunDirectory, read_json

INDEX = "index.jsonl"
NOTE_EVERY_S = 1.0
LAST_WORD_S = 60.0
CHUNK_BYTES = 4 * 1024**2


class LogIndex:
    """Notes the lengths of a run's logs once a second, when they have grown."""

    def __init__(self, run_dir: Path) -> None:
        self.folder = run_dir / "logs"
        self._noted: dict[str, int] = {}
        self._looked = 0.0

    def note(self) -> None:
        """To be called often; a disk that is full costs `--since` some of its precision."""
        if time.monotonic() - self._looked < NOTE_EVERY_S:
            return
        self._looked = time.monotonic()
        try:
            sizes = {path.stem: path.stat().st_size for path in self.folder.glob("*.log")}
            grown = {name: size for name, size in sizes.items() if self._noted.get(name) != size}
            if grown:
                append_line(self.folder / INDEX, {"time": time.time(), "sizes": grown})
        except OSError:
            return
        self._noted = sizes


def log_names(run_dir: Path) -> list[str]:
    """`supervisor`, `rank-0`, `rank-1` ..."""
    names = [path.stem for path in (run_dir / "logs").glob("*.log")]
    return sorted(names, key=lambda name: (not name.startswith("supervisor"), len(name), name))


def offsets_at(run_dir: Path, moment: float) -> dict[str, int]:
    """How long each log was at that time (seconds since 1970), to within a second; 0 if it was not there."""
    offsets: dict[str, int] = {}
    for row in read_lines(run_dir / "logs" / INDEX):
        if float(row.get("time", 0.0)) > moment:
            break
        offsets.update(row.get("sizes", {}))
    return offsets


def new_lines(run_dir: Path, offsets: dict[str, int], names: Collection[str] | None) -> dict[str, Any]:
    """{"lines": [{"log", "line", "next"}], "offsets": where to go on, "is_over", "more"}.

    Complete lines alone are told, a torn last one when the run is over; `next` is the offset after a line.
    `names` of logs, all of them without. "is_over" is as it was before the logs were read: once it is so
    and no lines came, there will be none.
    """
    is_over = _is_over(run_dir)
    lines: list[dict[str, Any]] = []
    after, more = dict(offsets), False
    for name in log_names(run_dir):
        if names is not None and name not in names:
            continue
        start = after.get(name, 0)
        with open(run_dir / "logs" / f"{name}.log", "rb") as file:
            file.seek(start)
            payload = file.read(CHUNK_BYTES)
        whole = payload[: payload.rfind(b"\n") + 1]
        if len(payload) == CHUNK_BYTES:
            more = True
            whole = whole or payload
        elif is_over:
            whole = payload
        for line in whole.splitlines(keepends=True):
            start += len(line)
            lines.append({"log": name, "line": line.decode(errors="replace").rstrip("\r\n"), "next": start})
        after[name] = start
    return {"lines": lines, "offsets": after, "is_over": is_over, "more": more}


def _is_over(run_dir: Path) -> bool:
    """Whether the run has ended and its supervisor has said its last word, or had the time for it."""
    status, record = RunDirectory(run_dir).status(), read_json(run_dir / RECORD)
    if status["state"] not in TERMINAL_STATES:
        return False
    return not record or record.get("code") is not None or time.time() - float(status["time"]) > LAST_WORD_S
