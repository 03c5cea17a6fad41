"""From a source to a dataset: `build_dataset` where you say, `ensure_dataset` in the cache.

The text is read three times: to learn what there is and divide it, to train the tokenizer (on the
train split alone), and to write tokens. The same input and configuration give the same files,
byte for byte, and the same digest.
"""

import os
import platform
import shutil
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import seedbed
from data.config import DataConfig
from data.corpus import Corpus, Kept, kept_documents, survey
from data.shard_writer import SplitWriter, token_dtype
from data.shards import (
    DROPS,
    FORMAT,
    MANIFEST,
    SPLITS,
    TOKENIZER,
    VERSION,
    Dataset,
    manifest_digest,
    read_manifest,
)
from data.sources import Drop, Source, open_source
from data.splits import Split, split_groups
from data.tokenizers import Tokenizer, load_tokenizer, train_tokenizer
from data.workspace import only_builder_of, publish, scratch_directory
from seedbed.errors import DataError
from seedbed.files import HashingWriter, canonical_json, digest_of, write_json
from seedbed.progress import Progress

# Enough text to keep every core at work, and little enough to hold as Python integers.
ENCODE_BYTES = 2 * 1024 * 1024


def build_dataset(config: DataConfig, out: str | Path) -> Path:
    """Build the dataset that `config` asks for as the directory `out`; returns `out`.

    An `out` that already is this very dataset is left as it is, and repaired where it is damaged.
    DataError when it is anything else, or when the source is missing, empty or damaged.
    """
    out = Path(out).expanduser()
    source = open_source(config)
    _refuse_other_content(out, config)
    with only_builder_of(out), scratch_directory(out) as folder:
        manifest = _write_dataset(config, source, folder)
        if _refuse_other_content(out, config):
            if read_manifest(out)["digest"] != manifest["digest"]:
                raise DataError(
                    f"{out} holds a dataset of this configuration but of other content: the source, "
                    "or the version of a library, has changed since",
                    "build under another name, or delete the old dataset first",
                )
            if _is_whole(out):
                return out
            print(f"replacing {out}, which is damaged", file=sys.stderr)
            shutil.rmtree(out)
        publish(folder, out)
    return out


def ensure_dataset(config: DataConfig) -> Path:
    """The dataset at `config.path`, or else the one built from `config.source`, in the cache.

    The cache is $SEEDBED_CACHE or ~/.cache/seedbed. A dataset is found there again as long as the
    configuration, the files of the source (names, sizes, times), and for the standard library the
    Python version, are the same. Processes that ask at once build once.
    """
    if config.path:
        return Dataset.open(Path(config.path).expanduser()).path
    source = open_source(config)
    out = cache_dir() / f"{source.name}-{_cache_key(config, source)[:16]}"
    if _opens(out):
        return out
    with only_builder_of(out):
        if _opens(out):
            return out
        if out.exists():
            print(f"replacing {out}, which is damaged", file=sys.stderr)
            shutil.rmtree(out)
        with scratch_directory(out) as folder:
            _write_dataset(config, source, folder)
            publish(folder, out)
    return out


def cache_dir() -> Path:
    """Where `ensure_dataset` keeps what it builds."""
    return Path(os.environ.get("SEEDBED_CACHE") or "~/.cache/seedbed").expanduser() / "datasets"


def _cache_key(config: DataConfig, source: Source) -> str:
    parts = _described(config) | {"source": source.identity(), "version": VERSION}
    if config.tokenizer:
        parts["tokenizer"] = load_tokenizer(config.tokenizer).fingerprint
    return digest_of(parts)


def _described(config: DataConfig) -> dict[str, Any]:
    """The part of the configuration that a dataset depends on."""
    return config.model_dump(mode="json", exclude={"path"})


def _refuse_other_content(out: Path, config: DataConfig) -> bool:
    """Whether `out` holds a dataset of this configuration; DataError when it holds anything else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not (out / MANIFEST).is_file():
        raise DataError(f"{out} exists and is not a dataset", "build under another name")
    try:
        recorded, asked = read_manifest(out)["config"], _described(config)
    except DataError as error:
        raise DataError(
            error.message, f"delete {out} and build again, or build under another name"
        ) from error
    different = sorted(
        name for name in recorded.keys() | asked.keys() if recorded.get(name) != asked.get(name)
    )
    if different:
        raise DataError(
            f"{out} holds a dataset of another configuration (data.{', data.'.join(different)})",
            "build under another name, or delete the old dataset first",
        )
    return True


def _opens(out: Path) -> bool:
    try:
        Dataset.open(out)
    except DataError:
        return False
    return True


def _is_whole(out: Path) -> bool:
    try:
        Dataset.open(out, verify=True)
    except DataError:
        return False
    return True


def _write_dataset(config: DataConfig, source: Source, folder: Path) -> dict[str, Any]:
    """Write all files of the dataset into `folder`, the manifest last; returns the manifest."""
    with HashingWriter(folder / DROPS) as drops, Progress("read", source.total_bytes, "B") as bar:

        def record(drop: Drop) -> None:
            row = {"id": drop.id, "source": drop.source, "reason": drop.reason, "detail": drop.detail}
            drops.write(canonical_json(row) + b"\n")

        corpus = survey(source, config.near_duplicate_threshold, record, bar.advance)
    sizes = np.array(corpus.sizes, dtype=np.int64)
    split = split_groups(list(corpus.numbers), sizes, corpus.groups, config.holdout_fraction, config.seed)
    tokenizer = _tokenizer_for(config, source, corpus, split)
    with HashingWriter(folder / TOKENIZER) as definition:
        definition.write(tokenizer.to_json().encode())
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "tokenizer": {"file": TOKENIZER} | tokenizer.describe(),
        "token_dtype": token_dtype(tokenizer.vocab_size),
        "splits": _write_splits(config, source, corpus, split, tokenizer, folder),
        "drops": dict(sorted(corpus.drops.items())),
        "dropped_file": DROPS,
        "replaced": corpus.num_replaced,
        "near_duplicate_groups": split.counts,
        "files": {TOKENIZER: definition.receipt(), DROPS: drops.receipt()},
        "source": source.describe(),
        "config": _described(config),
        "library_versions": {
            "python": platform.python_version(),
            "seedbed": seedbed.__version__,
            "numpy": np.__version__,
            "tokenizers": version("tokenizers"),
        },
    }
    manifest["digest"] = manifest_digest(manifest)
    write_json(folder / MANIFEST, manifest)
    return manifest


def _tokenizer_for(config: DataConfig, source: Source, corpus: Corpus, split: Split) -> Tokenizer:
    if config.tokenizer:
        return load_tokenizer(config.tokenizer)
    with Progress("train tokenizer", source.total_bytes, "B") as bar:
        kept = kept_documents(source, corpus, bar.advance)
        texts = (item.document.text for item in kept if not split.held_out[item.number])
        return train_tokenizer(texts, config.vocab_size)


def _write_splits(
    config: DataConfig, source: Source, corpus: Corpus, split: Split, tokenizer: Tokenizer, folder: Path
) -> dict[str, Any]:
    """Encode every document into the shards of its side; what the manifest says of the splits."""
    train, holdout = (
        SplitWriter(
            folder,
            name,
            vocab_size=tokenizer.vocab_size,
            end_of_text_id=tokenizer.end_of_text_id,
            shard_tokens=config.shard_tokens,
        )
        for name in SPLITS
    )
    with train, holdout, Progress("encode", source.total_bytes, "B") as bar:
        for batch in _batches(kept_documents(source, corpus, bar.advance)):
            encoded = tokenizer.encode_batch([item.document.text for item in batch])
            for item, ids in zip(batch, encoded, strict=True):
                writer = holdout if split.held_out[item.number] else train
                document = item.document
                provenance = {"id": document.id, "source": document.source, "sha256": item.sha256.hex()}
                writer.write(provenance, item.num_bytes, ids)
    return dict(zip(SPLITS, (train.described(), holdout.described()), strict=True))


def _batches(items: Iterable[Kept]) -> Iterator[list[Kept]]:
    batch: list[Kept] = []
    num_bytes = 0
    for item in items:
        batch.append(item)
        num_bytes += item.num_bytes
        if num_bytes >= ENCODE_BYTES:
            yield batch
            batch, num_bytes = [], 0
    if batch:
        yield batch
