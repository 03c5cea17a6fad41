"""What is in a dataset, for a person to look at before spending a run on it."""

from pathlib import Path
from typing import Any

import numpy as np

from data.order import Permutation
from data.shards import Dataset, Split
from data.tokenizers import Tokenizer
from seedbed.randomness import seed64

SAMPLE_CHARACTERS = 400


def inspect_dataset(path: str | Path, *, num_samples: int = 3, verify: bool = False) -> dict[str, Any]:
    """Counts, drops, lengths and `num_samples` documents per split of the dataset at `path`, as JSON values.

    The samples are the same each time. With `verify`, every byte is hashed first; DataError when
    the dataset is damaged.
    """
    dataset = Dataset.open(path, verify=verify)
    tokenizer = dataset.tokenizer()
    splits = {name: dataset.split(name) for name in dataset.splits}
    manifest = dataset.manifest
    num_tokens = sum(split.num_tokens for split in splits.values())
    utf8_bytes = sum(split.utf8_bytes for split in splits.values())
    return {
        "path": dataset.location.root,
        "digest": dataset.digest,
        "verified": verify,
        "documents": sum(split.num_documents for split in splits.values()),
        "tokens": num_tokens,
        "utf8_bytes": utf8_bytes,
        "bytes_per_token": utf8_bytes / max(1, num_tokens),
        "splits": {name: _describe(split) for name, split in splits.items()},
        "drops": manifest["drops"],
        "replaced": manifest["replaced"],
        "edited": manifest["edited"],
        "repeated_ids": manifest["repeated_ids"],
        "filters": manifest["filters"],
        "near_duplicate_groups": manifest["near_duplicate_groups"],
        "length_histogram": {name: _histogram(split) for name, split in splits.items()},
        "samples": [row for split in splits.values() for row in _samples(split, tokenizer, num_samples)],
        "tokenizer": manifest["tokenizer"],
        "token_dtype": manifest["token_dtype"],
        "source": manifest["source"],
        "config": manifest["config"],
        "library_versions": manifest["library_versions"],
    }


def _describe(split: Split) -> dict[str, Any]:
    return {
        "documents": split.num_documents,
        "tokens": split.num_tokens,
        "utf8_bytes": split.utf8_bytes,
        "bytes_per_token": split.utf8_bytes / max(1, split.num_tokens),
    }


def _histogram(split: Split) -> list[dict[str, int]]:
    """Documents by length: a row per power of two, from the shortest that occurs to the longest."""
    counts = np.zeros(64, dtype=np.int64)
    for lengths in split.lengths_by_shard():
        counts += np.bincount(np.floor(np.log2(lengths[:, 0])).astype(np.int64), minlength=64)
    occurring = np.flatnonzero(counts).tolist() or [0]
    return [
        {"from_tokens": 2**exponent, "below_tokens": 2 ** (exponent + 1), "documents": int(counts[exponent])}
        for exponent in range(occurring[0], occurring[-1] + 1)
    ]


def _samples(split: Split, tokenizer: Tokenizer, count: int) -> list[dict[str, Any]]:
    count = min(count, split.num_documents)
    if not count:
        return []
    order = Permutation(split.num_documents, seed64(0, "inspect", split.name))
    rows = []
    for number in sorted(order(place) for place in range(count)):
        provenance, tokens = split.document(number)
        text = tokenizer.decode(tokens[:-1])
        rows.append(provenance | {"split": split.name, "text": text[:SAMPLE_CHARACTERS]})
    return rows
