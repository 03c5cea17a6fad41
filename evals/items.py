"""What a language-model score is computed on: documents, as tokens and as the bytes they stand for.

Bits per byte compares models with different tokenizers, and models with compressors, only when all of
them are measured on the same bytes; so an item carries its text, and a set of items has a digest.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from data.config import DataConfig
from data.shards import Dataset
from data.sources import Drop, open_source
from seedbed.errors import DataError, UsageError


class Tokenizer(Protocol):
    """What evaluation needs of `data.tokenizers.Tokenizer`."""

    @property
    def end_of_text_id(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: list[int]) -> str: ...


@dataclass(frozen=True)
class Item:
    """One document: its tokens, without end_of_text, and the UTF-8 bytes that they stand for."""

    id: str
    source: str
    tokens: np.ndarray
    text: bytes

    @property
    def utf8_bytes(self) -> int:
        return len(self.text)


@dataclass(frozen=True)
class ItemSet:
    """Items, and what is known of where they came from (path, split, dataset digest, drops by reason)."""

    items: list[Item]
    origin: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return items_digest(self.items)


def items_digest(items: Iterable[Item]) -> str:
    """SHA-256 over the ids and texts in order: equal for two evaluations on the same bytes."""
    whole = hashlib.sha256()
    for item in items:
        for part in (item.id.encode(), item.text):
            whole.update(len(part).to_bytes(8, "little"))
            whole.update(part)
    return whole.hexdigest()


def is_dataset(path: Path) -> bool:
    """Whether `path` is a dataset directory, as against a place with raw text."""
    return (path / "manifest.json").is_file()


def load_items(data: Path, tokenizer: Tokenizer, *, split: str = "holdout") -> ItemSet:
    """The documents to score, under the checkpoint's `tokenizer`.

    `data` is a dataset, of which `split` is taken, or raw text (a file, a folder, JSON Lines), of
    which all is. A dataset with another tokenizer is decoded and encoded again: its bytes stay the same.
    """
    if not data.exists():
        raise UsageError(f"{data} does not exist", "give --data a dataset, a text file or a folder")
    item_set = _from_dataset(data, tokenizer, split) if is_dataset(data) else _from_text(data, tokenizer)
    if not any(item.utf8_bytes for item in item_set.items):
        raise DataError(f"{data} has no text to score", "give --data a place with at least one document")
    return item_set


def split_texts(dataset: Path, split: str) -> Iterator[bytes]:
    """The text of every document of a dataset's split, decoded by the dataset's own tokenizer."""
    for _, _, text in _decoded(dataset, split):
        yield text


def _from_dataset(path: Path, tokenizer: Tokenizer, split: str) -> ItemSet:
    dataset = Dataset.open(path)
    same_tokenizer = dataset.tokenizer_fingerprint == tokenizer.fingerprint
    items = []
    for provenance, tokens, text in _decoded(path, split):
        own = tokens if same_tokenizer else _encode(tokenizer, text.decode(), provenance["id"])
        items.append(Item(provenance["id"], provenance["source"], own, text))
    origin = {"path": str(path), "split": split, "digest": dataset.digest, "same_tokenizer": same_tokenizer}
    return ItemSet(items, origin)


def _from_text(path: Path, tokenizer: Tokenizer) -> ItemSet:
    source = open_source(DataConfig.model_validate({"source": str(path)}))
    items, drops = [], Counter[str]()
    for document in source.documents(lambda num_bytes: None):
        if isinstance(document, Drop):
            drops[document.reason] += 1
            continue
        tokens = _encode(tokenizer, document.text, document.id)
        items.append(Item(document.id, document.source, tokens, document.text.encode()))
    return ItemSet(items, {"path": str(path), "split": None, "drops": dict(drops)})


def _decoded(path: Path, split: str) -> Iterator[tuple[dict[str, Any], np.ndarray, bytes]]:
    """(provenance, tokens without end_of_text, text) of every document of a split."""
    from data.shards import Dataset

    dataset = Dataset.open(path)
    tokenizer = dataset.tokenizer()
    if tokenizer.lossy_because:
        raise DataError(
            f"the tokenizer of {path} does not give text back: {tokenizer.lossy_because}",
            "bits per byte need a dataset of byte-level BPE or SentencePiece",
        )
    for provenance, tokens in dataset.split(split).documents():
        own = np.asarray(tokens[:-1])
        text = tokenizer.decode(own.tolist()).encode()
        # Bits over a byte count that is not the text's would be a wrong score that looks like a good one.
        if len(text) != provenance["bytes"]:
            raise DataError(
                f"{path}: document {provenance['id']} decodes to {len(text)} bytes, "
                f"but its record says {provenance['bytes']}",
                "build the dataset again",
            )
        yield provenance, own, text


def _encode(tokenizer: Tokenizer, text: str, name: str) -> np.ndarray:
    ids = tokenizer.encode(text)
    if tokenizer.decode(ids) != text:
        raise DataError(
            f"the tokenizer does not give back the text of {name}, so its bits per byte mean nothing",
            "use a byte-level tokenizer, or leave the document out",
        )
    return np.asarray(ids, dtype=np.int64)
