"""The shards of one part, written: see `data.shards` for the files and who reads them."""

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from json.encoder import encode_basestring as json_string
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.split import TOKEN_DTYPES, shard_name
from seedbed.files import HashingWriter, canonical_json, write_atomic

# A sample that is read from a fresh place costs the hashing of one slice: 0.2 ms.
TOKEN_SLICE_BYTES = 256 * 1024


def token_dtype(vocab_size: int) -> str:
    """The name of the smallest type that holds every id."""
    return "uint16" if vocab_size <= 2**16 else "uint32"


def provenance_row(id: str, source: str, sha256: str, label: str | None = None) -> bytes:
    """Where a document comes from, and its label if it has one, as canonical JSON."""
    labelled = "" if label is None else f',"label":{json_string(label)}'
    return f'{{"id":{json_string(id)}{labelled},"sha256":"{sha256}","source":{json_string(source)}}}'.encode()


class SplitWriter:
    """Writes the documents of one split of one part, shard after shard, into `folder`.

        with SplitWriter(folder, part=0, split="train", ...) as writer:
            writer.write(provenances, num_bytes, tokens, ends)
        rows = writer.rows

    A shard ends before the document that would take it past `shard_tokens`; documents are never cut.
    """

    def __init__(
        self,
        folder: Path,
        *,
        part: int,
        split: str,
        vocab_size: int,
        shard_tokens: int,
        slice_bytes: int = TOKEN_SLICE_BYTES,
    ) -> None:
        self._folder, self._part, self._split = folder, part, split
        self._dtype = np.dtype(TOKEN_DTYPES[token_dtype(vocab_size)])
        self._shard_tokens, self._slice_bytes = shard_tokens, slice_bytes
        self._shard: _ShardWriter | None = None
        self.num_tokens = 0
        """Tokens of the finished shards."""
        self.rows: list[tuple[int, int, int, int, int, str]] = []
        """A row of `data.split.SHARD_ROW` for each finished shard, the hash in hex."""

    def write(
        self,
        provenances: Sequence[bytes],
        num_bytes: NDArray[Any],
        tokens: NDArray[Any],
        ends: NDArray[Any],
    ) -> None:
        """Add n documents of `num_bytes` [n] of UTF-8, whose `provenances` come from `provenance_row`.

        `tokens` has an end-of-text id after each; document i ends before `tokens[ends[i]]`.
        """
        tokens = tokens.astype(self._dtype, copy=False)
        done = 0
        while done < len(provenances):
            start = int(ends[done - 1]) if done else 0
            room = self._shard_tokens - (self._shard.num_tokens if self._shard else 0)
            until = int(np.searchsorted(ends, start + room, side="right"))
            if until <= done and self._shard is not None:
                self._finish_shard()
                continue
            until = max(until, done + 1)
            if self._shard is None:
                name = shard_name(self._split, self._part, len(self.rows))
                self._shard = _ShardWriter(self._folder, name, self._slice_bytes)
            stop = int(ends[until - 1])
            self._shard.write(
                provenances[done:until], num_bytes[done:until], tokens[start:stop], ends[done:until] - start
            )
            done = until

    def _finish_shard(self) -> None:
        if self._shard is not None:
            self.num_tokens += self._shard.num_tokens
            self.rows.append((self._part, len(self.rows), *self._shard.finish()))
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
    """`name` is the shard's full name; its files go into `folder` under the last part of it."""

    def __init__(self, folder: Path, name: str, slice_bytes: int) -> None:
        self._stem, self._slice_bytes = folder / Path(name).name, slice_bytes
        self._open = ExitStack()
        self._files: dict[str, HashingWriter] = {}
        self._tokens, self._documents = self._writer(".tokens"), self._writer(".documents.jsonl")
        self._index: list[NDArray[np.int64]] = []
        self.num_tokens = self._num_documents = self._utf8_bytes = 0

    def _writer(self, suffix: str) -> HashingWriter:
        path = self._stem.with_name(self._stem.name + suffix)
        self._files[suffix] = self._open.enter_context(HashingWriter(path, self._slice_bytes))
        return self._files[suffix]

    def write(
        self,
        provenances: Sequence[bytes],
        num_bytes: NDArray[Any],
        tokens: NDArray[Any],
        ends: NDArray[Any],
    ) -> None:
        lengths = np.diff(ends, prepend=0).tolist()
        # The provenance without its braces, between the keys that sort before and after it.
        rows = [
            b'{"bytes":%d,%b,"tokens":%d}' % (size, provenance[1:-1], length)
            for provenance, size, length in zip(provenances, num_bytes.tolist(), lengths, strict=True)
        ]
        self._tokens.write(tokens.data)
        self._documents.write(b"\n".join([*rows, b""]))
        self._index.append(np.stack([ends + self.num_tokens, num_bytes]).astype("<i8"))
        self.num_tokens += len(tokens)
        self._num_documents += len(provenances)
        self._utf8_bytes += int(num_bytes.sum())

    def finish(self) -> tuple[int, int, int, str]:
        """Close and sync the files; documents, tokens, UTF-8 bytes and the SHA-256 of the receipt."""
        self._writer(".index").write(np.concatenate(self._index, axis=1).data)
        self._open.close()
        receipt = canonical_json({suffix: file.receipt() for suffix, file in self._files.items()})
        write_atomic(self._stem.with_name(f"{self._stem.name}.json"), receipt)
        return self._num_documents, self.num_tokens, self._utf8_bytes, hashlib.sha256(receipt).hexdigest()

    def abandon(
        self, kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)
