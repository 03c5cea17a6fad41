"""Copies a pipeline or a sweep to MLflow: a parent run, a child for each stage or point, models with lineage.

`python -P -m cluster.pipelines.mirror FOLDER --uri URI --experiment NAME` follows the folder's record, as
`training.mirror` follows a run's, with the same promises: a server that is slow, or not there, costs the
pipeline nothing, and what it missed is sent when it is back. How far the copy of each child has come is in
FOLDER/tracking/. Children hold the curves, scores, reports and last checkpoint of their stage; what a run
made is a version of a registered model, whose tags say what it is made of, back to the data.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.pipelines.lineage import LINEAGE, chain_of
from training.checkpoint.layout import list_steps, step_dir
from training.mirror import MLFLOW_STATUS, Mirror, flatten
from training.run_directory import read_json
from training.tracking import main as follow_folder

RECORDS = ("sweep.json", "ladder.json", "pipeline.json")
FILES = (
    *RECORDS, "table.csv", "fitted.csv", "forecasts.jsonl", "scaling.html", "report.html",
)  # fmt: skip
"""Of a programme's folder, where they are there."""
MODULE = "cluster.pipelines.mirror"
STATES = {"done": "finished", "failed": "failed", "stopped": "preempted", "paused": "preempted"}
MOST_NUMBERS = 200
MOST_BYTES = 256 * 2**20
"""Of an artefact that is no run's and is copied whole."""
PARENT = "mlflow.parentRunId"


def record_of(folder: Path) -> dict[str, Any]:
    """What a pipeline, a sweep or a ladder says of itself."""
    return next((value for name in RECORDS if (value := read_json(folder / name))), {})


class Parent(Mirror):
    """The copy of the whole: what it is, and what it took."""

    def _describe(self, run_id: str) -> None:
        record = record_of(self.run_dir)
        tags = {
            "seedbed.programme": next((kind for kind in ("sweep", "ladder") if kind in record), "pipeline"),
            "mlflow.note.content": str(record.get("description", "")),
            **{f"seedbed.input.{name}": item["digest"] for name, item in record.get("inputs", {}).items()},
        }
        for name, value in tags.items():
            self._client.set_tag(run_id, name, value)

    def finish(self, run_state: str, end_time: float | None) -> None:
        run_id = self._run_id()
        stages = record_of(self.run_dir).get("stages", {}).values()
        for name in ("seconds", "device_hours"):
            self._client.log_metric(run_id, name, sum(float(stage.get(name) or 0.0) for stage in stages))
        for name in FILES:
            if (self.run_dir / name).is_file():
                self._client.log_artifact(run_id, str(self.run_dir / name))
        if run_state in MLFLOW_STATUS:
            end_ms = int(1000 * (end_time or time.time()))
            self._client.set_terminated(run_id, MLFLOW_STATUS[run_state], end_ms)
        self._save("complete", "")

    @property
    def run_id(self) -> str:
        """On the server, created if need be."""
        return self._run_id()


class Child(Mirror):
    """The copy of one stage."""

    def is_complete(self, stage: dict[str, Any]) -> bool:
        """Whether this very end was sent: a stage that failed may be tried again."""
        return self.state.get("closed") == [stage["state"], stage.get("digest"), stage.get("message")]

    def _describe(self, run_id: str) -> None:
        if (self.run_dir / "config.toml").is_file():
            super()._describe(run_id)

    def close(self, name: str, stage: dict[str, Any], record: dict[str, Any]) -> None:
        """Send what came of it, once it is over."""
        run_id = self._run_id()
        tags = {"seedbed.digest": stage.get("digest"), "seedbed.message": stage.get("message")}
        tags |= {f"seedbed.input.{key}": digest for key, digest in stage.get("inputs", {}).items()}
        for tag, value in tags.items():
            if value:
                self._client.set_tag(run_id, tag, value)
        for key, number in _numbers(stage):
            self._client.log_metric(run_id, key, number)
        if stage["state"] == "done":
            self._send_artefact(run_id, stage)
            # Of a sweep's points, the best alone is a model to keep.
            if stage["kind"] == "run" and "points" not in record:
                self.keep(name, stage, record)
        state = STATES[stage["state"]]
        self._client.set_terminated(run_id, MLFLOW_STATUS[state])
        self.state["closed"] = [stage["state"], stage.get("digest"), stage.get("message")]
        self._save("complete", "")

    def keep(self, name: str, stage: dict[str, Any], record: dict[str, Any]) -> None:
        """Send a run's last checkpoint, and have it be a version of a registered model."""
        run_id, out = self._run_id(), Path(stage["out"])
        self._client.log_artifacts(run_id, str(step_dir(out, list_steps(out)[-1])), "checkpoint")
        self._register(run_id, name, stage, record)

    def _send_artefact(self, run_id: str, stage: dict[str, Any]) -> None:
        out = Path(stage["out"])
        if stage["kind"] == "run":
            if (out / "report.html").is_file():
                self._client.log_artifact(run_id, str(out / "report.html"))
        elif stage["kind"] == "dataset":
            self._client.log_artifact(run_id, str(out / "manifest.json"))
        elif stage["kind"] == "file" and stage["bytes"] <= MOST_BYTES:
            self._client.log_artifact(run_id, str(out))

    def _register(self, run_id: str, name: str, stage: dict[str, Any], record: dict[str, Any]) -> None:
        """A version of the model PIPELINE.STAGE, unless this very one is there."""
        from mlflow.exceptions import MlflowException

        model = f"{record.get('pipeline') or record.get('sweep') or record.get('ladder')}.{name}"
        try:
            self._client.create_registered_model(model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        versions = self._client.search_model_versions(f"name = '{model}'")
        if any(version.run_id == run_id for version in versions):
            return
        chain = chain_of(Path(stage["out"]), name)
        tags = {f"{LINEAGE}{number:03}": json.dumps(entry) for number, entry in enumerate(chain)}
        tags |= {"seedbed.digest": stage["digest"], "seedbed.stage": name, "seedbed.path": stage["out"]}
        source = f"{self._client.get_run(run_id).info.artifact_uri}/checkpoint"
        self._client.create_model_version(model, source, run_id, tags=tags)


class Programme:
    """The copy of all of it, for `training.mirror.follow`."""

    def __init__(self, folder: Path, uri: str, experiment: str) -> None:
        self.folder, self._uri, self._experiment = folder, uri, experiment
        self.parent = Parent(folder, uri, experiment)
        self._children: dict[str, Child] = {}
        (folder / "tracking").mkdir(exist_ok=True)

    def send_new(self) -> None:
        """Everything that was written since the last time."""
        self.parent.send_new()
        record = record_of(self.folder)
        for name, stage in record.get("stages", {}).items():
            # Of one that runs there is something to copy once it has said what it is.
            is_run = bool(stage.get("key")) and (Path(stage["out"]) / "config.toml").is_file()
            if not stage.get("key") or not (is_run or stage["state"] in STATES):
                continue
            child = self._child(name, stage)
            if stage["state"] == "waiting" or child.is_complete(stage):
                continue
            child.send_new()
            if stage["state"] in STATES:
                child.close(name, stage, record)

    def finish(self, run_state: str, end_time: float | None) -> None:
        """The end of the whole, after that of its children."""
        record = record_of(self.folder)
        done = [point for point in record.get("points", []) if point["state"] == "done" and point.get("loss")]
        if best := min(done, key=lambda point: float(point["loss"]), default=None):
            stage = record["stages"][best["point"]]
            self._child(best["point"], stage).keep("best", stage, record)
        self.parent.finish(run_state, end_time)

    def note_trouble(self, error: Exception) -> None:
        """Why nothing can be sent. A server that lost one of the runs is a new one to all of them."""
        self.parent.note_trouble(error)
        if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":
            self._children = {}
            for path in (self.folder / "tracking").glob("*.json"):
                path.unlink()

    def _child(self, name: str, stage: dict[str, Any]) -> Child:
        # Another key is other work, and a child of its own.
        label = f"{name}-{stage['key'][:8]}"
        if label not in self._children:
            out = Path(stage["out"])
            tags = {PARENT: self.parent.run_id, "seedbed.stage": name, "seedbed.key": stage["key"]}
            self._children[label] = Child(
                out,
                self._uri,
                self._experiment,
                state_path=self.folder / "tracking" / f"{label}.json",
                name=name,
                tags=tags,
            )
        return self._children[label]


def _numbers(stage: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """What a stage took, and the figures of its result."""
    figures = {name: stage.get(name) for name in ("seconds", "device_hours", "bytes")}
    flat = flatten({**figures, "result": stage.get("result") or {}})
    found = 0
    for name, text in flat.items():
        try:
            value = float(text)
        except ValueError:
            continue
        if found < MOST_NUMBERS and abs(value) < float("inf"):
            found += 1
            yield "".join(c if c.isalnum() or c in "_-./ " else "_" for c in name), value


def main() -> int:
    """The process beside a pipeline or a sweep."""
    return follow_folder(Programme)


if __name__ == "__main__":
    sys.exit(main())
