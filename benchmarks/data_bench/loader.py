"""Tokens per second that one process reads: windows, packed rows and a mixture, at 2,048 tokens of context.

Cold is the first epoch of a dataset just opened, every slice hashed on the way (the files are in the page
cache, which a process cannot empty); warm is the same again. Beside it, the cost of the order's hash.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from data_bench.spread import spread

from data.batches import Batch, Stream, WindowStream
from data.location import Location
from data.mixture import MixtureStream
from data.order_hash import sample_digests
from data.packing import PackedStream
from data.shard_writer import SplitWriter, provenance_row
from data.split import Split, shard_table

CONTEXT, MICRO_BATCH = 2048, 8
VOCAB_SIZE, END_OF_TEXT = 50_000, 0
# Document lengths of web text: log-normal with this mean, most of them much shorter.
MEAN_TOKENS = 800


def run(quick: bool) -> dict[str, Any]:
    """Millions of tokens per second of each way to read, cold and warm."""
    num_tokens, repeats = (16_000_000, 3) if quick else (128_000_000, 5)
    results: dict[str, Any] = {"context": CONTEXT, "micro_batch": MICRO_BATCH, "tokens": 2 * num_tokens}
    with tempfile.TemporaryDirectory() as folder:
        tables = [write_split(Path(folder, name), num_tokens, seed) for seed, name in enumerate("ab")]

        def opened(number: int) -> Split:
            return Split(Location(Path(folder, "ab"[number])), "train", tables[number], "uint16", END_OF_TEXT)

        streams: dict[str, Callable[[], Stream[Batch]]] = {
            "concat": lambda: WindowStream(opened(0), CONTEXT, 0),
            "concat, within documents": lambda: WindowStream(opened(0), CONTEXT, 0, within_documents=True),
            "best-fit": lambda: PackedStream(opened(0), CONTEXT, 0),
            "mixture of two": lambda: MixtureStream(
                {name: WindowStream(opened(number), CONTEXT, 0) for number, name in enumerate("ab")}
            ),
        }
        for name, make in streams.items():
            results[name] = _measure(make, repeats)
        results["packing rates"] = PackedStream(opened(0), CONTEXT, 0).rates()
        results["order hash"] = _hash_rate(streams["concat"](), repeats)
    return results


def write_split(folder: Path, num_tokens: int, seed: int) -> np.ndarray:
    """Documents of random tokens in real shards; the table of shards."""
    rng = np.random.default_rng(seed)
    folder.joinpath("part-00000").mkdir(parents=True)
    writer = SplitWriter(
        folder / "part-00000", part=0, split="train", vocab_size=VOCAB_SIZE, shard_tokens=2**25
    )
    with writer:
        while num_tokens > 0:
            lengths = rng.lognormal(np.log(MEAN_TOKENS) - 0.5, 1, size=20_000).astype(np.int64) + 2
            ends = np.cumsum(lengths)
            tokens = rng.integers(1, VOCAB_SIZE, size=ends[-1], dtype=np.uint16)
            tokens[ends - 1] = END_OF_TEXT
            provenances = [provenance_row(str(number), "random", "") for number in range(len(lengths))]
            writer.write(provenances, 4 * lengths, tokens, ends)
            num_tokens -= int(ends[-1])
    return shard_table(writer.rows)


def _measure(make: Callable[[], Stream[Batch]], repeats: int) -> dict[str, Any]:
    """First batch in seconds; an epoch cold, and repeated warm, in millions of tokens per second."""
    started = time.perf_counter()
    stream = make()
    stream.batch(0, MICRO_BATCH)
    first_s = time.perf_counter() - started
    cold = _read(make())
    warm_stream = make()
    _read(warm_stream)
    warm = [_read(warm_stream) for _ in range(repeats)]
    return {"first batch s": round(first_s, 4), "cold Mtok/s": round(cold, 1), "warm Mtok/s": spread(warm)}


def _read(stream: Stream[Batch]) -> float:
    """Read one epoch; millions of tokens per second."""
    num_batches = stream.num_samples // MICRO_BATCH
    started = time.perf_counter()
    for number in range(num_batches):
        stream.batch(number * MICRO_BATCH, MICRO_BATCH)
    return num_batches * MICRO_BATCH * stream.context / (time.perf_counter() - started) / 1e6


def _hash_rate(stream: Stream[Batch], repeats: int) -> dict[str, Any]:
    """Millions of tokens per second that the order's hash goes over."""
    batch = stream.batch(0, 64)
    rates = []
    for _ in range(repeats):
        started = time.perf_counter()
        sample_digests(batch)
        rates.append(batch.tokens.size / (time.perf_counter() - started) / 1e6)
    return {"Mtok/s": spread(rates)}
