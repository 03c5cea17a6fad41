"""One side of a dataset: documents as one run of tokens over all shards, each opened when it is needed.

What is held of a shard that is not in use is 64 bytes, its row of the table. The shards of a process that
were used last, MAX_OPEN_SHARDS over all splits, stay open: each with its hashes and two mapped files.
"""

import hashlib
import io
import itertools
import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.location import REBUILD, Location
from seedbed.errors import DataError

TOKEN_DTYPES = {"uint16": "<u2", "uint32": "<u4"}

SHARD_ROW = np.dtype(
    [
        ("part", "<u4"),
        ("number", "<u4"),
        ("documents", "<i8"),
        ("tokens", "<i8"),
        ("utf8_bytes", "<i8"),
        ("receipt_sha256", "V32"),
    ]
)
"""A row of the table of a split: which shard, how much is in it, and the hash of its receipt."""

# Each open shard holds two descriptors, and a process may have 1,024 of them.
MAX_OPEN_SHARDS = 320

_OPEN: "OrderedDict[tuple[int, int], _Shard]" = OrderedDict()
_OPEN_LOCK = threading.Lock()
_split_numbers = itertools.count()


def shard_table(rows: Iterable[Sequence[Any]]) -> NDArray[Any]:
    """SHARD_ROW of each row, whose last entry is the hash in hex."""
    return np.array([(*row[:-1], bytes.fromhex(row[-1])) for row in rows], dtype=SHARD_ROW)


def shard_name(split: str, part: int, number: int) -> str:
    """The name of a shard's files, without their suffix."""
    return f"part-{part:05d}/{split}-{number:03d}"


class Split:
    """The documents of one side. `described` is what the manifest says of it, `table` [shards] SHARD_ROW."""

    def __init__(
        self, location: Location, name: str, table: NDArray[Any], dtype: str, end_of_text_id: int
    ) -> None:
        self.name, self.end_of_text_id = name, end_of_text_id
        self._location, self._table, self._dtype = location, table, np.dtype(TOKEN_DTYPES[dtype])
        # Where each shard begins, in tokens and in documents, and where the last one ends.
        self._token_starts = np.concatenate([[0], np.cumsum(table["tokens"])])
        self._document_starts = np.concatenate([[0], np.cumsum(table["documents"])])
        self.num_tokens = int(self._token_starts[-1])
        self.num_documents = int(self._document_starts[-1])
        self.utf8_bytes = int(table["utf8_bytes"].sum())
        self.num_shards = len(table)
        self._number = next(_split_numbers)

    def tokens(self, start: int, stop: int) -> NDArray[np.int64]:
        """Tokens start .. stop-1 of the split, which may lie in several shards."""
        out = np.empty(max(0, stop - start), dtype=np.int64)
        self.tokens_into(start, out)
        return out

    def tokens_into(self, start: int, out: NDArray[np.int64]) -> None:
        """Fill `out` [n] with tokens start .. start+n-1."""
        stop = start + len(out)
        if not 0 <= start <= stop <= self.num_tokens:
            raise IndexError(f"tokens {start} .. {stop} are not within 0 .. {self.num_tokens}")
        position = start
        number = int(self._token_starts.searchsorted(start, side="right")) - 1
        while position < stop:
            begin, end = int(self._token_starts[number]), int(self._token_starts[number + 1])
            until = min(stop, end)
            out[position - start : until - start] = self._shard(number).tokens(
                position - begin, until - begin
            )
            position, number = until, number + 1

    def documents_starting_in(self, start: int, stop: int) -> NDArray[np.int64]:
        """The tokens s, start <= s < stop, with which documents begin, ascending."""
        if not 0 <= start <= stop <= self.num_tokens:
            raise IndexError(f"tokens {start} .. {stop} are not within 0 .. {self.num_tokens}")
        found = []
        number = int(np.searchsorted(self._token_starts, start, side="right")) - 1
        while number < self.num_shards and (begin := int(self._token_starts[number])) < stop:
            ends = self._shard(number).ends
            # A document begins where the one before it ends, the first with the shard.
            low, high = np.searchsorted(ends, [start - begin, stop - begin])
            if start <= begin:
                found.append(np.array([begin]))
            found.append(ends[low : min(high, len(ends) - 1)] + begin)
            number += 1
        return np.concatenate(found) if found else np.empty(0, dtype=np.int64)

    def document(self, number: int) -> tuple[dict[str, Any], NDArray[np.int64]]:
        """Document `number` of the split: its provenance, and its tokens with the end-of-text id."""
        if not 0 <= number < self.num_documents:
            raise IndexError(f"document {number} is not within 0 .. {self.num_documents - 1}")
        shard = int(np.searchsorted(self._document_starts, number, side="right")) - 1
        return self._shard(shard).document(number - int(self._document_starts[shard]))

    def documents(self) -> Iterator[tuple[dict[str, Any], NDArray[np.int64]]]:
        """All documents in order, as `document` gives them."""
        for number in range(self.num_shards):
            yield from self._shard(number).documents()

    def provenances(self) -> Iterator[dict[str, Any]]:
        """The row of every document in order, without its tokens."""
        for number in range(self.num_shards):
            yield from self._shard(number).provenances()

    def lengths(self) -> NDArray[np.int64]:
        """[num_documents, 2]: tokens (with the end-of-text id) and UTF-8 bytes of each document."""
        return np.concatenate([np.empty((0, 2), dtype=np.int64), *self.lengths_by_shard()])

    def lengths_by_shard(self) -> Iterator[NDArray[np.int64]]:
        """`lengths` a shard at a time."""
        for number in range(self.num_shards):
            yield self._shard(number).lengths()

    def verify(self) -> None:
        """Hash every file of the split; DataError names the first damaged slice."""
        for number in range(self.num_shards):
            self._shard(number).verify()

    def refuse_absent(self) -> None:
        """DataError when a local token file is missing or of another size."""
        for row in self._table:
            name = shard_name(self.name, int(row["part"]), int(row["number"]))
            self._location.refuse_absent(f"{name}.tokens", int(row["tokens"]) * self._dtype.itemsize)

    def _shard(self, number: int) -> "_Shard":
        """The shard, open; of all open ones of the process, those that were used last stay so."""
        key = (self._number, number)
        with _OPEN_LOCK:
            if key in _OPEN:
                _OPEN.move_to_end(key)
                return _OPEN[key]
        row = self._table[number]
        name = shard_name(self.name, int(row["part"]), int(row["number"]))
        opened = _Shard(self._location, name, row["receipt_sha256"].tobytes(), self._dtype)
        with _OPEN_LOCK:
            _OPEN[key] = opened
            while len(_OPEN) > MAX_OPEN_SHARDS:
                _OPEN.popitem(last=False)
        return opened


class _Shard:
    """One shard's files, behind their receipt."""

    def __init__(self, location: Location, name: str, receipt_sha256: bytes, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        receipts = _receipts(location, f"{name}.json", receipt_sha256)
        self._index_bytes: int = receipts[".index"]["bytes"]
        self._tokens, self._index, self._documents = (
            location.open(name + suffix, receipts[suffix])
            for suffix in (".tokens", ".index", ".documents.jsonl")
        )

    def tokens(self, start: int, stop: int) -> NDArray[Any]:
        """Tokens start .. stop-1 of the shard, in the type of the file."""
        size = self._dtype.itemsize
        return self._tokens.read(start * size, stop * size).view(self._dtype)

    @property
    def ends(self) -> NDArray[np.int64]:
        """[num_documents]: the end of each document in tokens, as a view of the mapped file."""
        return self._index.read(0, self._index_bytes // 2).view("<i8")

    def lengths(self) -> NDArray[np.int64]:
        sizes = self._index.read(self._index_bytes // 2, self._index_bytes).view("<i8")
        return np.stack([np.diff(self.ends, prepend=0), sizes], axis=1)

    def document(self, number: int) -> tuple[dict[str, Any], NDArray[np.int64]]:
        line = next(itertools.islice(self._lines(), number, None))
        return json.loads(line), self._tokens_of(number)

    def documents(self) -> Iterator[tuple[dict[str, Any], NDArray[np.int64]]]:
        for number, line in enumerate(self._lines()):
            yield json.loads(line), self._tokens_of(number)

    def provenances(self) -> Iterator[dict[str, Any]]:
        return map(json.loads, self._lines())

    def verify(self) -> None:
        for file in (self._tokens, self._index, self._documents):
            file.verify()

    def _lines(self) -> Iterator[bytes]:
        yield from io.BytesIO(self._documents.read_all())

    def _tokens_of(self, number: int) -> NDArray[np.int64]:
        ends = self.ends
        return self.tokens(int(ends[number - 1]) if number else 0, int(ends[number])).astype(np.int64)


def _receipts(location: Location, name: str, sha256: bytes) -> dict[str, Any]:
    """The receipts of a shard's files by suffix, checked against the table."""
    try:
        content = location.read_bytes(name)
    except OSError as error:
        raise DataError(
            f"{location.name_of(name)} is missing ({error.strerror or error})", REBUILD
        ) from error
    if hashlib.sha256(content).digest() != sha256:
        raise DataError(f"{location.name_of(name)} is damaged: it does not match its SHA-256", REBUILD)
    return json.loads(content)
