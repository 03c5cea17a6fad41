"""A dataset on disk, read: token files behind a manifest, every byte checked before it is used.

    manifest.json                        what there is, with hashes; written last: no manifest, no dataset
    tokenizer.json or tokenizer.model    how text became ids
    drops.jsonl                          which documents were not taken, and why
    train.shards.npy                     a row per shard: how much is in it, and the hash of its receipt
    part-00000/train-000.json            the receipt: sizes and slice hashes of the shard's three files
    part-00000/train-000.tokens          little-endian ids, the end-of-text id after every document
    part-00000/train-000.index           little-endian int64 [2, documents]: end in tokens, UTF-8 bytes
    part-00000/train-000.documents.jsonl id, source, sha256, bytes and tokens of each document

So the manifest's digest vouches for the table, the table for the receipts, a receipt for each slice.
Opening reads the manifest and the tables, whatever the size of the corpus; shards are opened and token
files mapped when they are first touched. Each slice (256 KiB of tokens) is hashed when it is first read,
once per process: a flipped byte is an error before it is a training sample.
"""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data.location import REBUILD, Location
from data.split import SHARD_ROW, Split, shard_name
from data.tokenizers import Tokenizer, load_tokenizer
from seedbed.errors import DataError, nearest
from seedbed.files import digest_of

__all__ = ["Dataset", "Split", "manifest_digest", "read_manifest", "shard_name", "table_name"]

FORMAT = "seedbed-dataset"
VERSION = 2
MANIFEST = "manifest.json"
DROPS = "drops.jsonl"
SPLITS = ("train", "holdout")

# In a dataset of up to so many shards, opening looks whether every token file is there.
MAX_SHARDS_LOOKED_AT = 1000


def table_name(split: str) -> str:
    """The file that holds the table of shards of a split."""
    return f"{split}.shards.npy"


class Dataset:
    """An opened dataset. Use `Dataset.open`."""

    def __init__(self, location: Location, manifest: dict[str, Any]) -> None:
        self.location, self.manifest = location, manifest
        self.digest: str = manifest["digest"]
        self.vocab_size: int = manifest["tokenizer"]["vocab_size"]
        self.end_of_text_id: int = manifest["tokenizer"]["end_of_text_id"]
        self.tokenizer_fingerprint: str = manifest["tokenizer"]["fingerprint"]
        self._others = {name: location.open(name, receipt) for name, receipt in manifest["files"].items()}
        self._splits = {name: self._open_split(name) for name in manifest["splits"]}

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = False) -> "Dataset":
        """The dataset at `path`, a folder or an fsspec URL, its manifest and tables checked.

        With `verify`, every byte is hashed now. DataError names what is wrong.
        """
        location = Location(path)
        dataset = cls(location, read_manifest(location))
        if sum(split.num_shards for split in dataset._splits.values()) <= MAX_SHARDS_LOOKED_AT:
            for split in dataset._splits.values():
                split.refuse_absent()
        if verify:
            dataset.verify()
        return dataset

    @property
    def path(self) -> Path:
        """The folder of a local dataset."""
        return Path(self.location.root)

    @property
    def tokenizer_path(self) -> str:
        """Where its tokenizer is."""
        return self.location.name_of(self.manifest["tokenizer"]["file"])

    @property
    def splits(self) -> tuple[str, ...]:
        """The names that `split` takes."""
        return tuple(self._splits)

    def split(self, name: str) -> Split:
        """One split, "train" or "holdout"."""
        if name not in self._splits:
            known = ", ".join(self._splits)
            raise DataError(
                f"{self.location} has no split {name!r}",
                f"use {nearest(name, self._splits) or f'one of {known}'}",
            )
        return self._splits[name]

    def drops(self) -> Iterator[dict[str, Any]]:
        """The documents that were not taken, or not as they were: id, source, reason, detail."""
        for line in self._others[DROPS].read_all().splitlines():
            yield json.loads(line)

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made the ids, proved by its fingerprint."""
        name: str = self.manifest["tokenizer"]["file"]
        file = self.location.name_of(name)
        tokenizer = load_tokenizer(file, content=self._others[name].read_all())
        if tokenizer.fingerprint != self.tokenizer_fingerprint:
            raise DataError(f"{file} is not the tokenizer that made this dataset", REBUILD)
        return tokenizer

    def verify(self) -> None:
        """Hash every file; DataError names the first damaged slice."""
        for split in self._splits.values():
            split.verify()
        for file in self._others.values():
            file.verify()

    def _open_split(self, name: str) -> Split:
        table = np.load(io.BytesIO(self._others[table_name(name)].read_all()), allow_pickle=False)
        if table.dtype != SHARD_ROW:
            raise DataError(f"{self.location.name_of(table_name(name))} is not a table of shards", REBUILD)
        return Split(self.location, name, table, self.manifest["token_dtype"], self.end_of_text_id)


def read_manifest(location: Location | Path) -> dict[str, Any]:
    """The manifest of the dataset there; DataError when it is absent, damaged or of another version."""
    if isinstance(location, Path):
        location = Location(location)
    file = location.name_of(MANIFEST)
    try:
        manifest = json.loads(location.read_bytes(MANIFEST))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{location} is not a dataset: it has no {MANIFEST}",
            "give a folder that `seedbed data build` wrote",
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
            f"{location} has dataset format {version}, and this Seedbed reads {VERSION}",
            "use the Seedbed that wrote it, or rebuild it with `seedbed data build`",
        )
    if manifest.get("digest") != manifest_digest(manifest):
        raise DataError(f"{file} was altered: its digest does not fit its content", REBUILD)
    return manifest


def manifest_digest(manifest: dict[str, Any]) -> str:
    """The dataset's identity: SHA-256 over all of the manifest but the digest itself."""
    return digest_of({name: value for name, value in manifest.items() if name != "digest"})
