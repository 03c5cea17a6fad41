"""Opening a checkpoint: verified, resharded on read, hashed and compared."""

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seedbed.errors import CheckpointError, DamagedError, Unreadable, UsageError
from seedbed.files import canonical_json, digest_of
from training.checkpoint.layout import MANIFEST
from training.checkpoint.tensors import TORCH_DTYPES, open_verified, raw_bytes, read_piece

FORMAT = "seedbed-checkpoint"
VERSION = 1
PREFIXES = {
    False: ("model/",),
    True: ("model/", "optimizer/", "ema/", "critic/", "rl/", "rollouts/"),
}
"""What a hash is taken of: weights alone, or all that training goes on from."""


class Checkpoint:
    """One finished step. `open` checks the manifest and all sizes; reading checks the bytes read."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path, self.manifest = path, manifest
        self._files = {f["name"]: open_verified(path / f["name"], f) for f in manifest["files"]}

    @classmethod
    def open(cls, path: Path) -> "Checkpoint":
        """Raises DamagedError for a manifest or files that are not what was written.

        Any other DataError, such as of a newer format or of permissions, means that the checkpoint may well
        be sound.
        """
        if path.is_symlink():
            raise CheckpointError(
                f"{path} is a symbolic link to {path.resolve()}",
                "copy the step itself here: what a link points to may change under a run",
            )
        try:
            manifest = json.loads((path / MANIFEST).read_bytes())
        except (FileNotFoundError, ValueError) as error:
            raise DamagedError(f"{path / MANIFEST} cannot be read: {error}", "use another step") from None
        except OSError as error:
            raise Unreadable.because(path / MANIFEST, error) from None
        if not isinstance(manifest, dict):
            raise DamagedError(f"{path / MANIFEST} holds no JSON object", "use another step")
        # The digest comes first: a flipped bit in the version must not pass for a newer format.
        body = {key: value for key, value in manifest.items() if key != "digest"}
        if digest_of(body) != manifest.get("digest"):
            raise DamagedError(f"{path / MANIFEST} does not match its own digest", "use another step")
        if manifest.get("format") != FORMAT:
            raise CheckpointError(f"{path} is not a Seedbed checkpoint", "give a step directory of a run")
        if manifest.get("version", 0) > VERSION:
            raise CheckpointError(
                f"{path} has format version {manifest['version']}, this Seedbed reads up to {VERSION}",
                "upgrade Seedbed",
            )
        if path.name != f"step-{manifest['step']}":
            raise CheckpointError(
                f"{path} says that it is step {manifest['step']}", f"rename it to step-{manifest['step']}"
            )
        for file in manifest["files"]:
            if Path(file["name"]).name != file["name"] or (path / file["name"]).is_symlink():
                raise CheckpointError(
                    f"{path}: file '{file['name']}' lies outside of it", "do not trust this checkpoint"
                )
        return cls(path, manifest)

    @property
    def step(self) -> int:
        return int(self.manifest["step"])

    @property
    def position(self) -> int:
        """Samples consumed up to this step."""
        return int(self.manifest["position"])

    @property
    def num_bytes(self) -> int:
        """Size of all files on disk."""
        return sum(f["bytes"] for f in self.manifest["files"])

    def names(self, prefix: str = "") -> list[str]:
        """Canonical tensor names, sorted."""
        return sorted(name for name in self.manifest["tensors"] if name.startswith(prefix))

    def read_file(self, name: str) -> bytes:
        """A whole stored file, such as the configuration, verified."""
        file = self._files.get(name)
        if file is None:
            raise CheckpointError(f"{self.path} has no file {name}", "use another step")
        return file.read_all()

    def has_file(self, name: str) -> bool:
        """Whether `read_file` would find it."""
        return name in self._files

    def read(
        self,
        name: str,
        shape: tuple[int, ...] | None = None,
        offsets: tuple[int, ...] | None = None,
        local_shape: tuple[int, ...] | None = None,
    ) -> Tensor:
        """The part of tensor `name` at `offsets` of `local_shape`; the whole tensor by default.

        `shape` is what the caller's model expects of the whole; another one is a CheckpointError.
        """
        entry = self.manifest["tensors"].get(name)
        if entry is None:
            raise CheckpointError(
                f"{self.path} has no tensor '{name}'", "it is a checkpoint of another model: check [model]"
            )
        stored = tuple(entry["shape"])
        if shape is not None and shape != stored:
            raise CheckpointError(
                f"{self.path}: '{name}' has shape {list(stored)}, the model expects {list(shape)}",
                "it is a checkpoint of another model: check [model]",
            )
        low = offsets or (0,) * len(stored)
        extent = stored if local_shape is None else local_shape
        out = torch.empty(extent, dtype=TORCH_DTYPES[entry["dtype"]])
        filled = 0
        for piece in entry["pieces"]:
            bounds = [
                (max(a, o), min(a + e, o + s))
                for a, e, o, s in zip(low, extent, piece["offsets"], piece["shape"], strict=True)
            ]
            if any(begin >= end for begin, end in bounds):
                continue
            starts, ends = [b for b, _ in bounds], [e for _, e in bounds]
            values = read_piece(self._files[piece["file"]], piece, out.dtype, starts, ends)
            out[tuple(slice(b - a, e - a) for (b, e), a in zip(bounds, low, strict=True))] = values
            filled += values.numel()
        if filled != out.numel():
            raise DamagedError(f"{self.path}: parts of '{name}' are not stored", "use another step")
        return out

    def weights(self, *, ema: bool = False) -> str:
        """What the names of the weights begin with, or with `ema` those of their moving averages.

        Raises UsageError when there are none.
        """
        if ema and not self.names("ema/"):
            raise UsageError(
                f"{self.path} holds no averages of weights: it was trained without optimizer.ema_decay",
                "leave out --ema",
            )
        return "ema/" if ema else "model/"

    def verify(self) -> None:
        """Check every byte; raises CheckpointError naming the file and the slice."""
        for file in self._files.values():
            file.verify()
        for name in self.names():
            stored = sum(math.prod(piece["shape"]) for piece in self.manifest["tensors"][name]["pieces"])
            if stored != math.prod(self.manifest["tensors"][name]["shape"]):
                raise DamagedError(f"{self.path}: parts of '{name}' are not stored", "use another step")

    def hash(self, *, optimizer: bool = False) -> str:
        """One SHA-256 over the canonical parameters (names, types, shapes, bytes), and optimizer state.

        It depends on the values alone: not on the engine, the number of ranks or the file layout.
        """
        digest = hashlib.sha256()
        for name in [name for prefix in PREFIXES[optimizer] for name in self.names(prefix)]:
            tensor = self.read(name)
            digest.update(canonical_json([name, self.manifest["tensors"][name]["dtype"], list(tensor.shape)]))
            digest.update(raw_bytes(tensor))
        return digest.hexdigest()


def compare(left: Checkpoint, right: Checkpoint, *, optimizer: bool = False) -> Iterator[dict[str, Any]]:
    """Rows for tensors that differ: missing on one side, of another shape, or of other values."""
    names = {name for prefix in PREFIXES[optimizer] for side in (left, right) for name in side.names(prefix)}
    for name in sorted(names):
        sides = [side.manifest["tensors"].get(name) for side in (left, right)]
        if None in sides:
            yield {"tensor": name, "difference": "only in " + ("the first" if sides[0] else "the second")}
        elif sides[0]["shape"] != sides[1]["shape"]:
            yield {"tensor": name, "difference": f"shape {sides[0]['shape']} against {sides[1]['shape']}"}
        else:
            a, b = left.read(name), right.read(name)
            if raw_bytes(a) != raw_bytes(b):
                gap = (a.double() - b.double()).abs()
                yield {
                    "tensor": name,
                    "difference": f"{int((a != b).sum())} of {a.numel()} values",
                    "largest": float(gap.max()),
                }
