"""From an artefact back to the data: what it is made of, and what that is made of, by content.

It is in the records beside artefacts, and, for models that were registered, in the tags of their versions.
"""

import json
from pathlib import Path
from typing import Any

from cluster.pipelines.store import DONE
from seedbed.errors import UsageError
from training.run_directory import read_json

LINEAGE = "seedbed.lineage."
"""What tags of a model's version begin with that hold its lineage, from the artefact to the data."""


def chain_of(out: Path, name: str = "") -> list[dict[str, Any]]:
    """{stage, kind, digest, command, inputs, data} of an artefact and all that it is made of, newest first.

    `inputs` are digests, by the names that the command has for them; `data` is the digest of the dataset
    that a run learnt from. What was given, and made by no stage, has the command "".
    """
    # By place: a stage that learnt nothing has the content of what it began with.
    found: dict[Path, dict[str, Any]] = {}

    def visit(out: Path, name: str, digest: str) -> None:
        record = read_json(out.parent / DONE)
        if not record.get("digest"):
            found.setdefault(out, {"stage": name, "kind": "given", "digest": digest, "path": str(out)})
            return
        if out in found:
            return
        entry = {
            "stage": record["stage"],
            "kind": record["kind"],
            "digest": record["digest"],
            "command": " ".join(record["command"]),
            "inputs": {key: item["digest"] for key, item in record["inputs"].items()},
        }
        if record["kind"] == "run":
            identity = read_json(out / "recipe.json").get("identity", {})
            entry["data"] = identity.get("data.digest", "")
        found[out] = entry
        for key, item in record["inputs"].items():
            visit(Path(item["path"]), key, item["digest"])

    visit(out.resolve(), name, "")
    return list(found.values())


def lineage(model: str, uri: str = "") -> list[dict[str, Any]]:
    """`chain_of` an artefact at a path, or of the registered model NAME or NAME:VERSION at a tracking server.

    Raises UsageError when there is none.
    """
    if not uri:
        path = Path(model)
        if not path.exists() or not read_json(path.resolve().parent / DONE):
            raise UsageError(
                f"{model} is not what a stage made",
                "give a link in a pipeline's folder, or --uri and the name of a registered model",
            )
        return chain_of(path)
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    name, _, number = model.partition(":")
    try:
        versions = client.search_model_versions(f"name = '{name}'")
    except MlflowException as error:
        raise UsageError(f"{uri} does not answer: {error.message}", "give the server's address") from None
    chosen = [version for version in versions if not number or str(version.version) == number]
    if not chosen:
        raise UsageError(f"{uri} has no registered model {model}", "PIPELINE.STAGE, or with :VERSION")
    newest = max(chosen, key=lambda version: int(version.version))
    tags = {key: value for key, value in newest.tags.items() if key.startswith(LINEAGE)}
    return [json.loads(tags[key]) for key in sorted(tags)]
