"""Copies a run's records to MLflow, following them while they grow.

`metrics.jsonl` is the truth and MLflow a copy of it. How far the copy has come is kept in `tracking.json`
beside it, saved after the server has taken the rows: a mirror that dies between the two sends them again.
MLflow identifies a value by (run, key, step, timestamp, value), and its database stores refuse a second
one, so that rows sent twice stand there once. Rows of attempts that were undone later are copied as well;
`train/attempt` tells them apart.
"""

import json
import logging
import random
import re
import secrets
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from seedbed.files import write_json
from training.run_directory import read_json

if TYPE_CHECKING:
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

READ_BYTES = 256 * 1024
METRICS_PER_CALL = 1000  # MLflow's own limits, for these three
PARAMS_PER_CALL = 100
PARAM_CHARACTERS = 6000
POLL_S = 1.0
LONGEST_BACKOFF_S = 15.0
KEY_TAG = "seedbed.mirror"
NOT_METRICS = {"kind", "step", "time"}
# Answers that will be the same however often the question is asked.
FINAL_REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
MLFLOW_STATUS = {"finished": "FINISHED", "failed": "FAILED", "preempted": "KILLED"}

log = logging.getLogger("seedbed.mirror")
T = TypeVar("T")


REPORT_WAIT_S = 5.0


def _is_newer(path: Path, moment: float | None) -> bool:
    return path.exists() and path.stat().st_mtime >= (moment or 0.0)


class Mirror:
    """One run's copy on one MLflow server. Methods raise whatever the server's absence raises."""

    def __init__(
        self,
        run_dir: Path,
        uri: str,
        experiment: str,
        *,
        state_path: Path | None = None,
        name: str = "",
        tags: dict[str, str] | None = None,
    ) -> None:
        self.run_dir = run_dir
        self.experiment = experiment
        self._state_path = state_path or run_dir / "tracking.json"
        self._name, self._tags = name or run_dir.resolve().name, tags or {}
        self._uri = uri
        self._is_described = False
        self.state = self._load_state()

    @cached_property
    def _client(self) -> "MlflowClient":
        # Made at the first use, since it opens a database at once: locked or unreachable, it is
        # trouble like any other.
        from mlflow.tracking import MlflowClient

        return MlflowClient(tracking_uri=self._uri)

    def send_new(self) -> None:
        """Send everything that was written since the last time."""
        run_id = self._run_id()
        if not self._is_described:
            self._describe(run_id)
            self._is_described = True
        metrics_path = self.run_dir / "metrics.jsonl"
        if not metrics_path.exists():
            return
        if metrics_path.stat().st_size < self.state["offset"]:
            self.state["offset"] = 0  # another file than before: start over, what is there is there once
        with open(metrics_path, "rb") as file:
            file.seek(self.state["offset"])
            # A line without its end is still being written, or was torn; the next writer ends it.
            while lines := [line for line in file.readlines(READ_BYTES) if line.endswith(b"\n")]:
                self._send(run_id, lines)
        self._save("following", "")

    def finish(self, run_state: str, end_time: float | None) -> None:
        """Close the copy: the run's end as `status.json` tells it, and the report if there is one.

        A run that is not over stays open on the server.
        """
        run_id = self._run_id()
        if run_state in MLFLOW_STATUS:
            end_ms = int(1000 * (end_time or time.time()))
            self._client.set_terminated(run_id, MLFLOW_STATUS[run_state], end_ms)
        report = self.run_dir / "report.html"
        # The report tells how the run ended, so it is written a moment after the end.
        deadline = time.monotonic() + REPORT_WAIT_S
        while not _is_newer(report, end_time) and time.monotonic() < deadline:
            time.sleep(0.1)
        if report.exists():
            self._client.log_artifact(run_id, str(report))
        self._save("complete", "")

    def note_trouble(self, error: Exception) -> None:
        """Record why nothing could be sent, once for each new reason."""
        message = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
        if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":
            # The server has lost the run, or is a new one: a new copy from the first row.
            self.state = self._new_state()
            self._is_described = False
        if message != self.state["message"]:
            log.warning("%s", message)
        self._save("waiting for the server", message)

    def _load_state(self) -> dict[str, Any]:
        state = read_json(self._state_path)
        fresh = self._new_state()
        same = all(state.get(name) == fresh[name] for name in ("uri", "experiment"))
        return {**fresh, **state} if same else fresh

    def _new_state(self) -> dict[str, Any]:
        without_credentials = re.sub(r"//[^/@]*@", "//", self._uri)
        return {
            "uri": without_credentials,
            "experiment": self.experiment,
            "key": secrets.token_hex(16),
            "run_id": None,
            "offset": 0,
            "rows": 0,
            "rejected_rows": 0,
            "state": "starting",
            "message": "",
        }

    def _save(self, state: str, message: str) -> None:
        before = read_json(self._state_path)
        self.state.update(state=state, message=message)
        if self.state != before:
            write_json(self._state_path, self.state)

    def _run_id(self) -> str:
        """The run on the server, created at most once, whenever this process or the last one died."""
        if self.state["run_id"] is None:
            # The key is on disk before a run carries it, so that a run whose creation was the last
            # thing that a mirror did is found again.
            self._save("starting", self.state["message"])
            experiment_id = self._experiment_id()
            found = self._client.search_runs([experiment_id], f"tags.`{KEY_TAG}` = '{self.state['key']}'")
            run = found[0] if found else self._create_run(experiment_id)
            self.state["run_id"] = run.info.run_id
            self._save("following", "")
        return str(self.state["run_id"])

    def _create_run(self, experiment_id: str) -> Any:
        return self._client.create_run(
            experiment_id, run_name=self._name, tags={KEY_TAG: self.state["key"], **self._tags}
        )

    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(self.experiment)
        if found is not None:
            return str(found.experiment_id)
        # A database by itself would put artefacts below whatever directory it is opened from.
        beside = (self.run_dir.resolve().parent / "mlflow-artifacts").as_uri()
        location = beside if self._uri.startswith("sqlite:") else None
        return str(self._client.create_experiment(self.experiment, artifact_location=location))

    def _describe(self, run_id: str) -> None:
        """Send the configuration as parameters and the provenance as tags.

        MLflow's parameters are written once; what a resume has changed goes to `changed.*` tags.
        """
        from mlflow.entities import Param, RunTag

        run = self._client.get_run(run_id)
        config = flatten(_read_toml(self.run_dir / "config.toml"))
        known = run.data.params
        new = [Param(name, text) for name, text in config.items() if name not in known]
        changed = {
            f"changed.{name}": text for name, text in config.items() if name in known and known[name] != text
        }
        for params in _groups(new, PARAMS_PER_CALL):
            self._log(run_id, params=params)
        tags = [RunTag(name, text) for name, text in {**provenance(self.run_dir), **changed}.items()]
        for group in _groups(tags, PARAMS_PER_CALL):
            self._log(run_id, tags=group)
        if run.info.status != "RUNNING":
            self._client.update_run(run_id, status="RUNNING")

    def _send(self, run_id: str, lines: list[bytes]) -> None:
        metrics = [metric for line in lines for metric in _metrics_of(line)]
        is_taken = True
        for group in _groups(metrics, METRICS_PER_CALL):
            is_taken &= self._log(run_id, metrics=group)
        self.state["offset"] += sum(map(len, lines))
        self.state["rows" if is_taken else "rejected_rows"] += len(lines)
        self._save("following", "")

    def _log(self, run_id: str, **batch: list[Any]) -> bool:
        """False when the server will never take it: better a gap that is counted than a copy that stops."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.log_batch(run_id, **batch, synchronous=True)
        except MlflowException as error:
            if error.error_code not in FINAL_REFUSALS:
                raise
            log.error("refused: %s: %s", ", ".join(batch), error)
            return False
        return True


def follow(mirror: Mirror, ending: Callable[[], tuple[str, float | None] | None], drain_s: float) -> bool:
    """Keep the copy up to date until the run is over and everything is sent.

    `ending` gives None while the run goes on, then its final state and when that was. Once it is over,
    `drain_s` seconds are left for a server that does not answer. Returns whether the copy is complete.
    """
    deadline: float | None = None
    backoff_s = POLL_S / 2
    while True:
        # Asked before reading, so that what was written before the end is read.
        end = ending()
        if end is not None and deadline is None:
            deadline = time.monotonic() + drain_s
        try:
            mirror.send_new()
            if end is not None:
                mirror.finish(*end)
                return True
            wait_s = backoff_s = POLL_S
        except Exception as error:
            mirror.note_trouble(error)
            backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)
            wait_s = backoff_s * random.uniform(0.5, 1.0)  # many mirrors wait for one server
        if deadline is not None:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            wait_s = min(wait_s, left_s)
        time.sleep(wait_s)


def flatten(table: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """{"model.width": "256", ...} of nested tables; long values are cut to what MLflow holds."""
    flat: dict[str, str] = {}
    for name, value in table.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            flat[prefix + name] = text[:PARAM_CHARACTERS]
    return flat


def provenance(run_dir: Path) -> dict[str, str]:
    """What identifies a run, as tags: hashes, recipe, version, and the digests of its data."""
    record = read_json(run_dir / "recipe.json")
    names = ("recipe", "config_hash", "identity_hash", "seedbed_version")
    tags = {f"seedbed.{name}": str(record[name]) for name in names if record.get(name)}
    # In the identity, names of settings are dotted; the others are those of the dataset.
    identity = record.get("identity") or {}
    tags |= {f"seedbed.{name}": str(value) for name, value in identity.items() if "." not in name}
    return tags


def _metrics_of(line: bytes) -> "Iterator[Metric]":
    """One metric for every number of a row, named after the row's kind: `train/loss`."""
    from mlflow.entities import Metric

    try:
        row = json.loads(line)
        kind, step, time_ms = str(row["kind"]), int(row["step"]), int(1000 * float(row["time"]))
    except (ValueError, TypeError, KeyError):
        return  # torn by a crash, or a row about no step
    for name, value in row.items():
        if name not in NOT_METRICS and isinstance(value, int | float) and not isinstance(value, bool):
            yield Metric(f"{kind}/{name}", float(value), time_ms, step)


def _groups(values: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(values)
    while group := list(islice(iterator, size)):
        yield group


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
