"""The run directory: where a run's configuration, records and state are, and who may write there."""

import contextlib
import fcntl
import json
import os
import secrets
import time
from pathlib import Path
from typing import IO, Any

import seedbed
from seedbed.errors import ConfigError, DataError, UsageError
from seedbed.files import Journal, digest_of, write_atomic, write_json
from training.config import Config, config_hash, identity_of
from training.recipes import make_config, parse_toml, to_toml

INIT_FROM = "init-from"
"""Folder of a run that holds the weights it was started from, if it was."""

BEFORE_CONFIG = ("plan.json", "recipe.json", "heartbeats", "logs")
"""What a run directory gets before its `config.toml`."""

STOP = "stop-request.json"

TERMINAL_STATES = ("finished", "preempted", "failed")


class RunDirectory:
    """Paths and small records of one run. Large state is in `checkpoints/`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events = Journal(path / "events.jsonl")
        self.metrics = Journal(path / "metrics.jsonl")
        self.samples = Journal(path / "samples.jsonl")

    @classmethod
    def existing(cls, path: Path) -> "RunDirectory":
        """Raises UsageError when `path` is not a run directory."""
        run = cls(path)
        if not is_run(path):
            missing = [name for name in ("config.toml", "recipe.json") if not (path / name).is_file()]
            lacks = f": it has no {' and no '.join(missing)}" if path.is_dir() else ""
            raise UsageError(
                f"{path} is not a run directory{lacks}", "give the directory of a run that was started"
            )
        return run

    @property
    def config_path(self) -> Path:
        return self.path / "config.toml"

    @property
    def plan_path(self) -> Path:
        return self.path / "plan.json"

    def heartbeat_path(self, rank: int) -> Path:
        return self.path / "heartbeats" / f"rank-{rank}.json"

    def log_path(self, rank: int) -> Path:
        return self.path / "logs" / f"rank-{rank}.log"

    def config(self) -> Config:
        """The resolved configuration that the run was last started with."""
        try:
            text = self.config_path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"cannot read {self.config_path}: {error}",
                f"restore it from the newest {self.path / 'checkpoints'}/step-N/config.toml",
            ) from error
        return make_config(parse_toml(text, str(self.config_path)), str(self.config_path))

    def record(self) -> dict[str, Any]:
        """`recipe.json`: where the configuration came from, and what identifies the run."""
        record = read_json(self.path / "recipe.json")
        if record.get("identity_hash") != digest_of(record.get("identity")):
            raise DataError(
                f"{self.path / 'recipe.json'} is damaged: what identifies the run does not have its hash",
                f"restore it, or start from the run's weights: --init-from {self.path}",
            )
        return record

    def passed_over(self) -> list[tuple[int, int]]:
        """Stretches of data positions that roll-backs decided not to learn from; DataError if damaged."""
        path = self.path / "passed-over.json"
        if not path.exists():
            return []
        record = read_json(path)
        if record.get("digest") != digest_of(record.get("positions")):
            raise DataError(
                f"{path} is damaged: it says which data the run does not learn from",
                "restore it: its last content is in the `rolled_back` events of events.jsonl",
            )
        return [(start, end) for start, end in record["positions"]]

    def pass_over(self, positions: list[tuple[int, int]]) -> None:
        """Write them down, durably."""
        value = {"positions": positions, "digest": digest_of(positions)}
        write_json(self.path / "passed-over.json", value)

    def status(self) -> dict[str, Any]:
        """`status.json`; state 'unknown' when it cannot be read."""
        return read_json(self.path / "status.json") or {"state": "unknown"}

    def write_status(self, state: str, step: int, message: str = "") -> None:
        """Replace `status.json`, a mirror: what cannot be written is left as it was."""
        value = {"state": state, "step": step, "time": time.time(), "message": message}
        with contextlib.suppress(OSError):
            write_json(self.path / "status.json", value, durable=False)

    def event(self, kind: str, message: str, **details: Any) -> None:
        """Append one line to `events.jsonl`."""
        self.events.append({"time": time.time(), "kind": kind, "message": message, **details})

    def begin_session(self) -> None:
        """Mark the moment from which the run's wall time counts again; a stop asked for earlier is over."""
        (self.path / STOP).unlink(missing_ok=True)
        self.event("session_started", f"process {os.getpid()} takes the run on", pid=os.getpid())

    def request_stop(self, *, now: bool) -> None:
        """Have whoever supervises the run stop it: with a checkpoint, or at once."""
        write_json(self.path / STOP, {"now": now, "time": time.time()})

    def stop_requested(self) -> int:
        """How many times it was asked to stop since it was started: 2 means at once."""
        path = self.path / STOP
        return (2 if read_json(path).get("now") else 1) if path.exists() else 0

    def create(self, config: Config, record: dict[str, Any], plan: dict[str, Any]) -> None:
        """Write what a new run starts from; `config.toml` comes last and makes it a run."""
        for folder in ("heartbeats", "logs", "checkpoints"):
            (self.path / folder).mkdir(parents=True, exist_ok=True)
        write_json(self.plan_path, plan)
        write_json(self.path / "recipe.json", record)
        write_atomic(self.config_path, to_toml(config))
        self.begin_session()
        self.event(
            "run_created", f"{record['recipe']} in {self.path.name}", config_hash=record["config_hash"]
        )

    def lock(self) -> IO[str]:
        """Hold the run directory for this process and the workers that inherit the file.

        Raises UsageError while another process, or a worker that it left behind, holds it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / "run.lock").touch()
        except FileExistsError as error:
            raise UsageError(
                f"{error.filename} is a file, so it cannot be a run directory", "choose another --run-dir"
            ) from None
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{self.path} cannot be used as a run directory: {error}", "choose another"
            ) from None
        file = open(self.path / "run.lock", "a+", encoding="utf-8")  # noqa: SIM115 - held by the caller
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            file.close()
            raise UsageError(
                f"{self.path} is in use by another run (process {owner})",
                "wait for it, stop it, or choose another --run-dir",
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        return file

    def discard_if_unused(self) -> None:
        """Remove what `lock` made, if no run came of it; to be called by the lock's holder."""
        if [entry.name for entry in self.path.iterdir()] == ["run.lock"]:
            (self.path / "run.lock").unlink()
            self.path.rmdir()


def is_run(path: Path) -> bool:
    """Whether `path` is a run directory; a checkpoint also holds a config.toml, but no recipe.json."""
    return (path / "config.toml").is_file() and (path / "recipe.json").is_file()


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`, or an empty one when it is absent or damaged."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def make_record(
    config: Config, recipe: str, overrides: list[str], difference: dict[str, Any], dataset: dict[str, Any]
) -> dict[str, Any]:
    """`recipe.json` of a run: provenance, and the identity that a resume must share."""
    identity = {**identity_of(config), **dataset}
    return {
        "id": secrets.token_hex(8),
        "seedbed_version": seedbed.__version__,
        "recipe": recipe,
        "overrides": overrides,
        "difference": difference,
        "config_hash": config_hash(config),
        "identity": identity,
        "identity_hash": digest_of(identity),
    }


def check_identity(run: RunDirectory, identity: dict[str, Any]) -> None:
    """Raises ConfigError naming every identity field in which `identity` differs from the run's."""
    stored = run.record().get("identity", {})
    changed = [
        f"{name}: {stored.get(name)!r} in the run, {identity.get(name)!r} now"
        for name in sorted({*stored, *identity})
        if stored.get(name) != identity.get(name)
    ]
    if changed:
        raise ConfigError(
            f"{run.path} holds a run with another identity: " + "; ".join(changed),
            f"leave these settings as they are, choose another --run-dir, or branch off with "
            f"`seedbed train --resume {run.path} --fork NEW_DIR --set ...`",
        )
