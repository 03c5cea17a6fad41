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
from data.shards import DROPS, FORMAT, MANIFEST, SPLITS, TOKENIZER, VERSION, Dataset, manifest_digest
from data.sources import Drop, Source, open_source
from data.splits import Split, split_groups
from data.tokenizers import Tokenizer, load_tokenizer, train_tokenizer
from data.workspace import building, only_builder_of
from seedbed.errors import DataError
from seedbed.files import HashingWriter, canonical_json, digest_of, write_json
from seedbed.progress import Progress

# Enough text to keep every core at work, and little enough to hold as Python integers.
ENCODE_BYTES = 2 * 1024 * 1024


def build_dataset(config: DataConfig, out: str | Path) -> Path:
    """Build the dataset that `config` asks for as the directory `out`; returns `out`.

    An `out` that already is this very dataset is left as it is. DataError when it is anything else,
    or when the source is missing, empty or damaged.
    """
    out = Path(out).expanduser()
    _refuse_other(out, config)
    with only_builder_of(out):
        _refuse_other(out, config)
        with building(out) as folder:
            manifest = _write_dataset(config, folder)
            if not (out / MANIFEST).exists():
                return out
            if Dataset.open(out).digest == manifest["digest"]:
                # The directory that was just built is not needed: removed here, it is not renamed.
                raise _AlreadyThere
    raise AssertionError("unreachable")


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
    if _usable(out):
        return out
    with only_builder_of(out):
        if not _usable(out):
            shutil.rmtree(out, ignore_errors=True)
            with building(out) as folder:
                _write_dataset(config, folder)
    return out
