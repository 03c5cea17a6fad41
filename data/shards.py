"""A dataset on disk, read: token files behind a manifest, every byte checked before it is used.

    manifest.json                what there is, with hashes; written last, so no manifest, no dataset
    tokenizer.json, drops.jsonl  how text became ids; which documents were not taken, and why
    train-00000.tokens           little-endian ids, <|endoftext|> after every document
    train-00000.index.npy        int64 [documents, 2]: end in the shard in tokens, UTF-8 bytes
    train-00000.documents.jsonl  id, source, sha256, bytes and tokens of each document

Token files are mapped, not loaded. Each slice (64 MiB) is hashed when it is first touched, once
per process: a flipped byte is an error before it is a training sample, and opening costs nothing.
"""

import io
import itertools
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.tokenizers import Tokenizer, load_tokenizer
from seedbed.errors import DataError, nearest
from seedbed.files import digest_of
from seedbed.verified import VerifiedFile

FORMAT = "seedbed-dataset"
VERSION = 1
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
DROPS = "drops.jsonl"
SPLITS = ("train", "holdout")
TOKEN_DTYPES = {"uint16": "<u2", "uint32": "<u4"}

REBUILD = "rebuild with `seedbed data build`; a dataset in the cache is rebuilt once its folder is deleted"


def open_verified(path: Path, receipt: dict[str, Any]) -> VerifiedFile:
    """A file of a dataset; whatever is wrong with it is a DataError."""
    return VerifiedFile(path, receipt, DataError, REBUILD)


class Dataset:
    """An opened dataset. Use `Dataset.open`."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path, self.manifest = path, manifest
        self.digest: str = manifest["digest"]
        self.vocab_size: int = manifest["tokenizer"]["vocab_size"]
        self.end_of_text_id: int = manifest["tokenizer"]["end_of_text_id"]
        self.tokenizer_fingerprint: str = manifest["tokenizer"]["fingerprint"]
        self._splits = {name: Split(path, name, manifest) for name in manifest["splits"]}
        self._others = [open_verified(path / name, receipt) for name, receipt in manifest["files"].items()]

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = False) -> "Dataset":
        """The dataset at `path`, its manifest checked and its files present at their sizes.

        With `verify`, every byte is hashed now. DataError names what is wrong.
        """
        dataset = cls(Path(path), read_manifest(Path(path)))
        if verify:
            dataset.verify()
        return dataset

    @property
    def splits(self) -> tuple[str, ...]:
        """The names that `split` takes."""
        return tuple(self._splits)

    @property
    def tokenizer_path(self) -> Path:
        return self.path / self.manifest["tokenizer"]["file"]

    def split(self, name: str) -> "Split":
        """One split, "train" or "holdout"."""
        if name not in self._splits:
            known = ", ".join(self._splits)
            raise DataError(
                f"{self.path} has no split {name!r}",
                f"use {nearest(name, self._splits) or f'one of {known}'}",
            )
        return self._splits[name]

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made the ids, proved by its fingerprint."""
        tokenizer = load_tokenizer(self.tokenizer_path)
        if tokenizer.fingerprint != self.tokenizer_fingerprint:
            raise DataError(f"{self.tokenizer_path} is not the tokenizer that made this dataset", REBUILD)
        return tokenizer

    def verify(self) -> None:
        """Hash every file; DataError names the first damaged slice."""
        for split in self._splits.values():
            split.verify()
        for file in self._others:
            file.verify()


class Split:
    """The documents of one side, as one run of tokens over all shards."""

    def __init__(self, path: Path, name: str, manifest: dict[str, Any]) -> None:
        described = manifest["splits"][name]
        self.name = name
        self.num_tokens: int = described["tokens"]
        self.num_documents: int = described["documents"]
        self.utf8_bytes: int = described["utf8_bytes"]
        self.end_of_text_id: int = manifest["tokenizer"]["end_of_text_id"]
        dtype = np.dtype(TOKEN_DTYPES[manifest["token_dtype"]])
        self._shards = [_Shard(path, shard, dtype) for shard in described["shards"]]
        # Where each shard begins, in tokens and in documents, and where the last one ends.
        self._token_starts = np.cumsum([0, *(shard.num_tokens for shard in self._shards)])
        self._document_starts = np.cumsum([0, *(shard.num_documents for shard in self._shards)])

    def tokens(self, start: int, stop: int) -> NDArray[np.int64]:
        """Tokens start .. stop-1 of the split, which may lie in several shards."""
        if not 0 <= start <= stop <= self.num_tokens:
            raise IndexError(f"tokens {start} .. {stop} are not within 0 .. {self.num_tokens}")
        out = np.empty(stop - start, dtype=np.int64)
        position = start
        number = int(np.searchsorted(self._token_starts, start, side="right")) - 1
        while position < stop:
            begin, end = int(self._token_starts[number]), int(self._token_starts[number + 1])
            until = min(stop, end)
            out[position - start : until - start] = self._shards[number].tokens(
                position - begin, until - begin
            )
            position, number = until, number + 1
        return out

    def document(self, number: int) -> tuple[dict[str, Any], NDArray[np.int64]]:
        """Document `number` of the split: its provenance, and its tokens with the end-of-text id."""
        if not 0 <= number < self.num_documents:
            raise IndexError(f"document {number} is not within 0 .. {self.num_documents - 1}")
        shard = int(np.searchsorted(self._document_starts, number, side="right")) - 1
        return self._shards[shard].document(number - int(self._document_starts[shard]))

    def documents(self) -> Iterator[tuple[dict[str, Any], NDArray[np.int64]]]:
        """All documents in order, as `document` gives them."""
        for shard in self._shards:
            yield from shard.documents()

    def lengths(self) -> NDArray[np.int64]:
        """[num_documents, 2]: tokens (with the end-of-text id) and UTF-8 bytes of each document."""
        return np.concatenate([shard.lengths() for shard in self._shards])

    def verify(self) -> None:
        """Hash every file of the split; DataError names the first damaged slice."""
        for shard in self._shards:
            shard.verify()


class _Shard:
    """One shard's three files."""

    def __init__(self, path: Path, described: dict[str, Any], dtype: np.dtype[Any]) -> None:
        name = described["name"]
        self.num_tokens: int = described["tokens"]
        self.num_documents: int = described["documents"]
        self._dtype = dtype
        self._tokens, self._index, self._documents = (
            open_verified(path / f"{name}{suffix}", described["files"][f"{name}{suffix}"])
            for suffix in (".tokens", ".index.npy", ".documents.jsonl")
        )

    def tokens(self, start: int, stop: int) -> NDArray[np.int64]:
        size = self._dtype.itemsize
        return self._tokens.read(start * size, stop * size).view(self._dtype).astype(np.int64)

    @cached_property
    def index(self) -> NDArray[np.int64]:
        """[num_documents, 2]: end of each document in tokens, and its UTF-8 bytes."""
        return np.load(io.BytesIO(self._index.read_all()), allow_pickle=False)

    def lengths(self) -> NDArray[np.int64]:
        ends = self.index[:, 0]
        return np.stack([np.diff(ends, prepend=0), self.index[:, 1]], axis=1)

    def document(self, number: int) -> tuple[dict[str, Any], NDArray[np.int64]]:
        line = next(itertools.islice(self._lines(), number, None))
        return json.loads(line), self._tokens_of(number)

    def documents(self) -> Iterator[tuple[dict[str, Any], NDArray[np.int64]]]:
        for number, line in enumerate(self._lines()):
            yield json.loads(line), self._tokens_of(number)

    def verify(self) -> None:
        for file in (self._tokens, self._index, self._documents):
            file.verify()

    def _lines(self) -> Iterator[bytes]:
        self._documents.verify()
        with open(self._documents.path, "rb") as file:
            yield from file

    def _tokens_of(self, number: int) -> NDArray[np.int64]:
        start = int(self.index[number - 1, 0]) if number else 0
        return self.tokens(start, int(self.index[number, 0]))


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the dataset at `path`; DataError when it is absent, damaged or too new."""
    file = path / MANIFEST
    try:
        manifest = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{path} is not a dataset: it has no {MANIFEST}", "give a folder that `seedbed data build` wrote"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {file}: {error}", REBUILD) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DataError(
            f"{file} does not describe a dataset", "give a folder that `seedbed data build` wrote"
        )
    version = manifest.get("version")
    if version != VERSION:
        raise DataError(
            f"{path} has dataset format {version}, and this Seedbed reads {VERSION}",
            "use the Seedbed that wrote it, or rebuild it with `seedbed data build`",
        )
    if manifest.get("digest") != manifest_digest(manifest):
        raise DataError(f"{file} was altered: its digest does not fit its content", REBUILD)
    return manifest


def manifest_digest(manifest: dict[str, Any]) -> str:
    """The dataset's identity: SHA-256 over all of the manifest but the digest itself."""
    return digest_of({name: value for name, value in manifest.items() if name != "digest"})
