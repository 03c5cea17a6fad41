"""What stages make and are made of: identified by content, and watched for changes.

A run is its newest checkpoint's weights, whatever engine wrote them; a dataset its digest; any other file or
folder its bytes. Beside that, a stamp of names, sizes and times says cheaply that nothing was touched since.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data import shards
from seedbed.errors import DataError
from seedbed.files import digest_of, hash_file
from training.checkpoint.layout import MANIFEST, list_steps, step_dir
from training.run_directory import is_run, read_json


@dataclass(frozen=True)
class Artefact:
    """One that exists."""

    kind: str
    """run, dataset, file or folder."""
    digest: str
    stamp: str
    num_bytes: int


def exists(path: Path) -> bool:
    """Whether there is anything: an empty file or folder is nothing."""
    if path.is_dir():
        return any(path.iterdir())
    return path.is_file() and path.stat().st_size > 0


def identify(path: Path, *, verify: bool = False) -> Artefact:
    """What is at `path`; with `verify`, every byte is read. DataError for damage, and for nothing."""
    if not exists(path):
        raise DataError(f"there is nothing at {path}", "make it again, or give another path")
    files = files_of(path)
    found = {str(file.relative_to(path)) if path.is_dir() else "": file.stat() for file in files}
    stamp = digest_of({name: [stat.st_size, stat.st_mtime_ns] for name, stat in found.items()})
    kind, digest = _identified(path, files, verify)
    return Artefact(kind, digest, stamp, sum(stat.st_size for stat in found.values()))


def stamp_of(path: Path) -> str:
    """See `Artefact.stamp`; empty for nothing."""
    if not exists(path):
        return ""
    stats = [(file, file.stat()) for file in files_of(path)]
    names = {str(file.relative_to(path)) if path.is_dir() else "": stat for file, stat in stats}
    return digest_of({name: [stat.st_size, stat.st_mtime_ns] for name, stat in names.items()})


def files_of(path: Path) -> list[Path]:
    """The files that an artefact consists of; of a run, those of its newest checkpoint."""
    if path.is_file():
        return [path]
    root = path
    if is_run(path):
        steps = list_steps(path)
        if not steps:
            return []
        root = step_dir(path, steps[-1])
    return sorted(
        Path(folder) / name for folder, _, names in os.walk(root, followlinks=True) for name in names
    )


def _identified(path: Path, files: list[Path], verify: bool) -> tuple[str, str]:
    if is_run(path):
        return "run", _of_run(path, verify)
    if (path / shards.MANIFEST).is_file() and read_json(path / shards.MANIFEST).get("digest"):
        return "dataset", str(shards.Dataset.open(path, verify=verify).digest)
    if path.is_file():
        return "file", str(hash_file(path)["sha256"])
    return "folder", digest_of({str(file.relative_to(path)): hash_file(file)["sha256"] for file in files})


def _of_run(path: Path, verify: bool) -> str:
    """Of the weights, by the sums that the checkpoint keeps of each tensor: the same on any ranks."""
    steps = list_steps(path)
    if not steps:
        raise DataError(f"{path} holds no checkpoint", "train it until it has saved one")
    folder = step_dir(path, steps[-1])
    manifest = read_json(folder / MANIFEST)
    body = {key: value for key, value in manifest.items() if key != "digest"}
    if digest_of(body) != manifest.get("digest"):
        raise DataError(f"{folder / MANIFEST} does not match its own digest", "use another run")
    if verify:
        for file in manifest["files"]:
            found = hash_file(folder / file["name"], file["slice_bytes"]) if _is_there(folder, file) else {}
            if found.get("sha256") != file["sha256"]:
                raise DataError(f"{folder / file['name']} is not what was written", "use another run")
    return digest_of(
        {name: _tensor(entry) for name, entry in manifest["tensors"].items() if name.startswith("model/")}
    )


def _is_there(folder: Path, file: dict[str, Any]) -> bool:
    path = folder / str(file["name"])
    return path.is_file() and path.stat().st_size == file["bytes"]


def _tensor(entry: dict[str, Any]) -> list[Any]:
    return [entry["dtype"], entry["shape"], entry["sum"]]
