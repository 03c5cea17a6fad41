"""A Hugging Face folder on disk: config.json, and tensors in one safetensors file or in indexed shards."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from seedbed.errors import DataError, UsageError
from seedbed.files import write_json

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
MAX_SHARD_BYTES = 5 * 10**9


def read_config(folder: Path) -> dict[str, Any]:
    """The settings of config.json."""
    values = _read_json(folder / CONFIG)
    named = values.get("architectures")
    if not (named is None or (isinstance(named, list) and all(isinstance(name, str) for name in named))):
        raise DataError(
            f"{folder / CONFIG}: architectures is {named!r}, not a list of names", "copy the folder again"
        )
    return values


class Weights:
    """The tensors of a folder: names and shapes at once, values when they are read."""

    def __init__(self, folder: Path) -> None:
        self._files: dict[str, Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for path in _weight_files(folder):
            with _open(path) as file:
                for name in file.keys():  # noqa: SIM118 - not a dictionary
                    if name in self._files:
                        raise DataError(
                            f"{path} and {self._files[name]} both have {name}", "keep one of them"
                        )
                    self._files[name] = path
                    self.shapes[name] = tuple(file.get_slice(name).get_shape())

    def read(self, name: str) -> Tensor:
        """One tensor, in the precision that it is stored in; DataError for what no model computes with."""
        with _open(self._files[name]) as file:
            values = file.get_tensor(name)
        if not values.is_floating_point() or not values.isfinite().all():
            wrong = "values that are not finite" if values.is_floating_point() else f"{values.dtype} numbers"
            raise DataError(f"{self._files[name]}: {name} holds {wrong}", "give the weights of a sound model")
        return values


def write_weights(folder: Path, tensors: Iterable[tuple[str, Tensor]], max_shard_bytes: int) -> None:
    """Write tensors as they come: into model.safetensors, or into shards with an index when they are more."""
    shards: list[list[str]] = []
    part: dict[str, Tensor] = {}
    total = part_bytes = 0
    for name, tensor in tensors:
        size = tensor.numel() * tensor.element_size()
        if part and part_bytes + size > max_shard_bytes:
            shards.append(_write_shard(folder, len(shards), part))
            part, part_bytes = {}, 0
        part[name] = tensor
        part_bytes, total = part_bytes + size, total + size
    shards.append(_write_shard(folder, len(shards), part))
    if len(shards) == 1:
        _unfinished(folder, 0).rename(folder / WEIGHTS)
        return
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards):
        file_name = f"model-{number + 1:05}-of-{len(shards):05}.safetensors"
        _unfinished(folder, number).rename(folder / file_name)
        weight_map |= dict.fromkeys(names, file_name)
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def new_folder(folder: Path) -> None:
    """Make `folder`; one that already holds a model is refused."""
    used = sorted(
        path.name for path in folder.glob("*") if path.name == CONFIG or ".safetensors" in path.name
    )
    if used:
        raise UsageError(f"{folder} already holds {', '.join(used)}", "choose another folder")
    folder.mkdir(parents=True, exist_ok=True)


def write_config(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write config.json: last, since it is what makes the folder a model."""
    write_json(folder / CONFIG, dict(settings))


def _write_shard(folder: Path, number: int, part: Mapping[str, Tensor]) -> list[str]:
    from safetensors.torch import save_file

    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in part.items()}
    save_file(whole, _unfinished(folder, number), metadata={"format": "pt"})
    return list(part)


def _unfinished(folder: Path, number: int) -> Path:
    return folder / f"model-{number + 1:05}.safetensors.unfinished"


def _open(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, "pt")
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read: {error}", "copy the folder again") from error


def _weight_files(folder: Path) -> list[Path]:
    if (folder / INDEX).is_file():
        weight_map = _read_json(folder / INDEX).get("weight_map")
        names = sorted(set(weight_map.values())) if isinstance(weight_map, dict) else []
        absent = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
        if absent or not names:
            raise DataError(
                f"{folder / INDEX} names files that are not beside it: {', '.join(absent) or 'none at all'}",
                "copy the folder again",
            )
        return [folder / name for name in names]
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    pickles = sorted(path.name for path in folder.glob("*.bin"))
    raise DataError(
        f"{folder} has neither {WEIGHTS} nor {INDEX}"
        + (f"; {', '.join(pickles)} could run code when it is opened, and is not" if pickles else ""),
        "give a folder whose weights are stored as safetensors",
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist", "give a folder in the Hugging Face format") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not JSON: {error}", "copy the folder again") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} is not a JSON object", "copy the folder again")
    return found
