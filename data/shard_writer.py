"""A dataset on disk, written: see `data.shards` for the files and who reads them."""

import io
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from data.shards import TOKEN_DTYPES
from seedbed.files import SLICE_BYTES, HashingWriter, canonical_json


def token_dtype(vocab_size: int) -> str:
    """The name of the smallest type that holds every id."""
    return "uint16" if vocab_size <= 2**16 else "uint32"


class SplitWriter:
    """Writes the documents of one split, shard after shard, into `folder`.

        with SplitWriter(folder, "train", ...) as writer:
            writer.write({"id": ..., "source": ..., "sha256": ...}, num_bytes, ids)
        manifest["splits"]["train"] = writer.described()

    A shard ends before the document that would take it past `shard_tokens`; documents are never cut.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        *,
        vocab_size: int,
        end_of_text_id: int,
        shard_tokens: int,
        slice_bytes: int = SLICE_BYTES,
    ) -> None:
        self._folder, self._split = folder, split
        self._dtype = np.dtype(TOKEN_DTYPES[token_dtype(vocab_size)])
        self._end_of_text_id, self._shard_tokens, self._slice_bytes = (
            end_of_text_id,
            shard_tokens,
            slice_bytes,
        )
        self._finished: list[dict[str, Any]] = []
        self._shard: _ShardWriter | None = None

    def write(self, provenance: dict[str, Any], num_bytes: int, ids: Sequence[int]) -> None:
        """Add one document of `num_bytes` UTF-8 bytes; `ids` come without the end-of-text id."""
        tokens = np.array([*ids, self._end_of_text_id], dtype=self._dtype)
        if self._shard is not None and self._shard.num_tokens + len(tokens) > self._shard_tokens:
            self._finish_shard()
        if self._shard is None:
            name = f"{self._split}-{len(self._finished):05d}"
            self._shard = _ShardWriter(self._folder, name, self._slice_bytes)
        self._shard.write(provenance, num_bytes, tokens)

    def described(self) -> dict[str, Any]:
        """What the manifest says of the split, once it is closed."""
        totals = {
            key: sum(shard[key] for shard in self._finished) for key in ("documents", "tokens", "utf8_bytes")
        }
        return {"shards": self._finished} | totals

    def _finish_shard(self) -> None:
        if self._shard is not None:
            self._finished.append(self._shard.finish())
            self._shard = None

    def __enter__(self) -> "SplitWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish_shard()
        elif self._shard is not None:
            self._shard.abandon(kind, error, trace)


class _ShardWriter:
    def __init__(self, folder: Path, name: str, slice_bytes: int) -> None:
        self._folder, self._name, self._slice_bytes = folder, name, slice_bytes
        self._open = ExitStack()
        self._files = {f"{name}.tokens": self._writer(".tokens")}
        self._files[f"{name}.documents.jsonl"] = self._writer(".documents.jsonl")
        self._index: list[tuple[int, int]] = []
        self.num_tokens = self._utf8_bytes = 0

    def _writer(self, suffix: str) -> HashingWriter:
        path = self._folder / f"{self._name}{suffix}"
        return self._open.enter_context(HashingWriter(path, self._slice_bytes))

    def write(self, provenance: dict[str, Any], num_bytes: int, tokens: np.ndarray) -> None:
        row = provenance | {"bytes": num_bytes, "tokens": len(tokens)}
        self._files[f"{self._name}.tokens"].write(tokens.tobytes())
        self._files[f"{self._name}.documents.jsonl"].write(canonical_json(row) + b"\n")
        self.num_tokens += len(tokens)
        self._utf8_bytes += num_bytes
        self._index.append((self.num_tokens, num_bytes))

    def finish(self) -> dict[str, Any]:
        """Close and sync the files; what the manifest says of the shard."""
        content = io.BytesIO()
        np.save(content, np.array(self._index, dtype="<i8"))
        index = self._files[f"{self._name}.index.npy"] = self._writer(".index.npy")
        index.write(content.getvalue())
        self._open.close()
        return {
            "name": self._name,
            "documents": len(self._index),
            "tokens": self.num_tokens,
            "utf8_bytes": self._utf8_bytes,
            "files": {name: file.receipt() for name, file in self._files.items()},
        }

    def abandon(
        self, kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)
