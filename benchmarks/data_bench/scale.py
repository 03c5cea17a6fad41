"""Time to the first batch, and memory, of a corpus of 15 trillion tokens in 100,000 shards.

The manifest, the tables and one shard are real; the other shards are links to that one, whose tokens are a
sparse file of zeros with its true hashes.
"""

import hashlib
import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from data_bench.spread import spread

from data.shard_writer import TOKEN_SLICE_BYTES
from data.shards import FORMAT, MANIFEST, VERSION, manifest_digest, table_name
from data.split import SHARD_ROW
from data.tokenizers import train_tokenizer
from seedbed.files import canonical_json, hash_file, slices_root, write_json

NUM_SHARDS = 100_000
SHARD_TOKENS = 150_000_000
DOCUMENT_TOKENS = 1000


def run(quick: bool) -> dict[str, Any]:
    """Seconds from a started interpreter to the first batch, and peak memory, of fresh processes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "corpus")
        make_corpus(path)
        results: dict[str, Any] = {"tokens": NUM_SHARDS * SHARD_TOKENS, "shards": NUM_SHARDS}
        for packing in ("concat", "best-fit"):
            command = [sys.executable, "-P", "-c", _FIRST_BATCH, str(path), packing]
            rows = [json.loads(subprocess.check_output(command)) for _ in range(3 if quick else 9)]
            results[packing] = {key: spread([row[key] for row in rows]) for key in rows[0]}
    return results


def make_corpus(path: Path) -> None:
    """Write the dataset."""
    (path / "part-00000").mkdir(parents=True)
    receipts = _write_shard(path / "part-00000" / "train-000")
    for part in range(1, NUM_SHARDS):
        (path / f"part-{part:05d}").symlink_to("part-00000")
    table = np.zeros(NUM_SHARDS, dtype=SHARD_ROW)
    table["part"] = np.arange(NUM_SHARDS)
    table["documents"], table["tokens"] = SHARD_TOKENS // DOCUMENT_TOKENS, SHARD_TOKENS
    table["utf8_bytes"] = 4 * SHARD_TOKENS
    table["receipt_sha256"] = np.void(hashlib.sha256(receipts).digest())
    tokenizer = train_tokenizer(iter(["one small text"]), 300)
    contents = {tokenizer.file_name: tokenizer.to_bytes(), table_name("train"): _npy(table)}
    for name, content in contents.items():
        (path / name).write_bytes(content)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "tokenizer": {"file": tokenizer.file_name} | tokenizer.describe(),
        "token_dtype": "uint32",
        "splits": {"train": {}},
        "files": {name: hash_file(path / name) for name in contents},
    }
    manifest["digest"] = manifest_digest(manifest)
    write_json(path / MANIFEST, manifest)


def _write_shard(stem: Path) -> bytes:
    """The files of the one shard; its receipt."""
    ends = np.arange(DOCUMENT_TOKENS, SHARD_TOKENS + 1, DOCUMENT_TOKENS)
    index = np.stack([ends, np.full_like(ends, 4 * DOCUMENT_TOKENS)])
    stem.with_name(stem.name + ".index").write_bytes(index.astype("<i8").tobytes())
    stem.with_name(stem.name + ".documents.jsonl").write_bytes(b"")
    with open(stem.with_name(stem.name + ".tokens"), "wb") as file:
        file.truncate(4 * SHARD_TOKENS)
    whole, rest = divmod(4 * SHARD_TOKENS, TOKEN_SLICE_BYTES)
    zeros = [TOKEN_SLICE_BYTES] * whole + [rest] * bool(rest)
    hashes = {size: hashlib.sha256(bytes(size)).hexdigest() for size in set(zeros)}
    slices = "".join(hashes[size] for size in zeros)
    tokens = {
        "bytes": 4 * SHARD_TOKENS,
        "slice_bytes": TOKEN_SLICE_BYTES,
        "slices": slices,
        "sha256": slices_root(slices),
    }
    others = {
        suffix: hash_file(stem.with_name(stem.name + suffix), TOKEN_SLICE_BYTES)
        for suffix in (".index", ".documents.jsonl")
    }
    receipt = canonical_json({".tokens": tokens, **others})
    stem.with_name(stem.name + ".json").write_bytes(receipt)
    return receipt


def _npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


_FIRST_BATCH = """
import time
started = time.perf_counter()
import json, sys
from data.batches import WindowStream
from data.packing import PackedStream
from data.shards import Dataset
path, packing = sys.argv[1:]
split = Dataset.open(path).split("train")
if packing == "concat":
    stream = WindowStream(split, 2048, seed=0)
else:
    stream = PackedStream(split, 2048, seed=0, method=packing)
opened = time.perf_counter() - started
batch = stream.batch(10**9, 8)
first = time.perf_counter() - started
# Not getrusage: its peak is inherited from the process that started this one.
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
peak = int(status["VmHWM"].split()[0]) * 1024 / 1e6
print(json.dumps({"open_s": opened, "first_batch_s": first, "peak_memory_mb": peak}))
"""
