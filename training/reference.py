"""Log-probabilities of answers under a reference that never changes: computed once, kept in the cache,
verified.

    $SEEDBED_CACHE/references/KEY/manifest.json     what they are of, and the hashes of
    $SEEDBED_CACHE/references/KEY/log_probs.f32     [U, K] little-endian float32, by sample of an epoch

The key is a hash of all that they depend on. Processes that ask at once compute once.
"""

import contextlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data.build import cache_dir
from data.build.workspace import only_builder_of, publish
from data.examples.groups import GroupBatch, GroupStream
from seedbed.errors import DamagedError, DataError
from seedbed.files import HashingWriter, digest_of, write_json
from seedbed.progress import Progress
from seedbed.verified import VerifiedFile
from training.checkpoint.layout import resolve
from training.checkpoint.models import load_model
from training.checkpoint.reader import Checkpoint
from training.objectives.preference import GroupTensors, answer_log_probs

VERSION = 1
MANIFEST, VALUES = "manifest.json", "log_probs.f32"
TOKENS_AT_ONCE = 8192


def reference_log_probs(
    reference: Path, stream: GroupStream, about: dict[str, Any], device: torch.device, precision: str
) -> NDArray[np.float32]:
    """[U, K] of the samples of `stream`, under the model of the checkpoint `reference`.

    `about` says which samples these are, beside what the stream itself says.
    """
    key = {
        **about,
        "reference": Checkpoint.open(resolve(reference)).hash(),
        "context": stream.context,
        "too_long": stream.fitting.policy,
        "mismatched": stream.mismatched,
        "precision": precision,
        "samples": stream.num_samples,
        "version": VERSION,
    }
    out = cache_dir().parent / "references" / digest_of(key)[:24]
    shape = (stream.num_samples, stream.num_candidates)
    with contextlib.suppress(DataError):
        return _read(out, shape)
    with only_builder_of(out) as folder:
        with contextlib.suppress(DataError):
            return _read(out, shape)
        values = _computed(reference, stream, device, precision)
        _write(folder / "done", values, key)
        _discard(out)
        publish(folder / "done", out)
    return values


def _computed(
    reference: Path, stream: GroupStream, device: torch.device, precision: str
) -> NDArray[np.float32]:
    model = load_model(reference).decoder().to(device).eval()
    count = max(1, TOKENS_AT_ONCE // (stream.context * stream.num_candidates))
    values = np.zeros((stream.num_samples, stream.num_candidates), dtype=np.float32)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    autocast = torch.autocast(device.type, dtype) if dtype else contextlib.nullcontext()
    with Progress("reference", stream.num_samples) as bar, torch.no_grad(), autocast:
        for first in range(0, stream.num_samples, count):
            numbers = range(first, min(first + count, stream.num_samples))
            batch = group_tensors(stream.of(numbers))
            moved = GroupTensors(*(value.to(device) for value in batch))
            values[first : numbers.stop] = answer_log_probs(model, moved)[0].cpu().numpy()
            bar.advance(len(numbers))
    return values


def group_tensors(batch: GroupBatch) -> GroupTensors:
    """As tensors, without the columns in which every candidate is padding."""
    longest = max(2, int(batch.lengths.max(initial=0)))
    return GroupTensors(
        torch.from_numpy(batch.tokens[..., :longest].copy()),
        torch.from_numpy(batch.lengths).long(),
        torch.from_numpy(batch.trained[..., :longest].copy()),
        torch.from_numpy(batch.ranks).long(),
        torch.from_numpy(batch.margins),
        torch.from_numpy(batch.weights),
        torch.from_numpy(batch.reference),
    )


def _write(folder: Path, values: NDArray[np.float32], key: dict[str, Any]) -> None:
    _discard(folder)
    folder.mkdir()
    with HashingWriter(folder / VALUES) as file:
        file.write(np.ascontiguousarray(values, dtype="<f4").data)
    content = {"key": key, "file": file.receipt()}
    write_json(folder / MANIFEST, content | {"digest": digest_of(content)})


def _read(folder: Path, shape: tuple[int, int]) -> NDArray[np.float32]:
    """DataError when they are not there, or not whole."""
    try:
        content = json.loads((folder / MANIFEST).read_bytes())
        digest = content.pop("digest")
    except FileNotFoundError:
        raise DataError(f"{folder} holds no log-probabilities") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        print(f"! {folder} is damaged, and is computed again", file=sys.stderr)
        raise DataError(f"{folder} holds no log-probabilities: {error}") from error
    if digest != digest_of(content):
        print(f"! {folder} is damaged, and is computed again", file=sys.stderr)
        raise DamagedError(f"{folder / MANIFEST} does not match its own digest")
    file = VerifiedFile(folder / VALUES, content["file"], DamagedError, "delete it: it is computed again")
    values = np.frombuffer(file.read_all(), dtype="<f4")
    if values.size != shape[0] * shape[1]:
        raise DamagedError(f"{folder} holds {values.size} numbers, not {shape[0]} x {shape[1]}")
    return values.reshape(shape).astype(np.float32)


def _discard(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
