"""Tensors in hashed files: a safetensors writer that hashes while it writes, and reading a part of a
stored tensor from a file whose every slice is verified before any byte of it is used.

The files are plain safetensors (8-byte little-endian header length, JSON header, raw bytes) and
open in any tool that reads that format.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seedbed.errors import DamagedError
from seedbed.files import HashingWriter
from seedbed.verified import VerifiedFile

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
TORCH_DTYPES = {name: dtype for dtype, name in DTYPES.items()}


def raw_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, without a copy."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


def write_tensors(
    path: Path, tensors: Sequence[tuple[str, Tensor]]
) -> tuple[dict[str, Any], list[list[int]]]:
    """Write named CPU tensors to a new safetensors file.

    Returns the file's receipt and, for each tensor, the [start, end) of its bytes in the file.
    """
    header: dict[str, Any] = {}
    ranges: list[list[int]] = []
    end = 0
    for name, tensor in tensors:
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
        ranges.append([start, end])
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with HashingWriter(path) as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for _, tensor in tensors:
            file.write(raw_bytes(tensor))
    base = 8 + len(text)
    return file.receipt(), [[base + start, base + stop] for start, stop in ranges]


def open_verified(path: Path, receipt: dict[str, Any]) -> VerifiedFile:
    """A file of a checkpoint; whatever is wrong with its bytes is a DamagedError."""
    return VerifiedFile(path, receipt, DamagedError, "use another step: this one is not whole")


def read_piece(
    file: VerifiedFile, piece: dict[str, Any], dtype: torch.dtype, low: Sequence[int], high: Sequence[int]
) -> Tensor:
    """The part of a stored piece between global coordinates `low` and `high` (exclusive).

    Reads only the rows (first dimension) that are asked for.
    """
    offsets, shape = piece["offsets"], piece["shape"]
    if not shape:
        return torch.frombuffer(file.read(*piece["bytes"]).copy(), dtype=dtype).reshape(())
    row_bytes = math.prod(shape[1:]) * dtype.itemsize
    first, last = low[0] - offsets[0], high[0] - offsets[0]
    start = piece["bytes"][0] + first * row_bytes
    payload = file.read(start, start + (last - first) * row_bytes).copy()
    rows = torch.frombuffer(payload, dtype=dtype).reshape(last - first, *shape[1:])
    inner = tuple(slice(low[d] - offsets[d], high[d] - offsets[d]) for d in range(1, len(shape)))
    return rows[(slice(None), *inner)]
