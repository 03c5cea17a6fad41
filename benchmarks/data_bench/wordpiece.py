"""WordPiece: our encoder against `tokenizers`, on one thread, with identical output.

One text, the standard library's Python files; every round is a fresh process that encodes it with both,
each first in every other round. Ours starts with nothing cached ("cold"), and then does it again ("warm").
"""

import hashlib
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from data.tokenizers import load_tokenizer, train_tokenizer

VOCAB_SIZE = 30522
BATCH_TEXTS = 64
ONE_THREAD = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def run(quick: bool) -> dict[str, Any]:
    """Rates in MB/s, and the ratio ours / theirs of each round."""
    from data_bench.spread import spread

    rounds, num_files = (3, 150) if quick else (7, 1200)
    with tempfile.TemporaryDirectory() as folder:
        corpus, tokenizer = Path(folder, "corpus.json"), Path(folder, "tokenizer.json")
        texts = _texts(num_files)
        corpus.write_text(json.dumps(texts), encoding="utf-8")
        tokenizer.write_bytes(train_tokenizer(iter(texts[:150]), VOCAB_SIZE, "wordpiece").to_bytes())
        results = [_measured(tokenizer, corpus, ours_first=bool(turn % 2)) for turn in range(rounds)]
    if len({result["digest"] for result in results}) != 1:
        raise AssertionError("the encoders, or two processes, gave different ids")
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    times = {name: [result["seconds"][name] for result in results] for name in results[0]["seconds"]}
    theirs = times["tokenizers"]
    return {
        "megabytes": megabytes,
        "documents": len(texts),
        "tokens": results[0]["tokens"],
        "rounds": rounds,
        "identical": True,
        "mb_per_s": {name: spread([megabytes / s for s in seconds]) for name, seconds in times.items()},
        "over_tokenizers": {
            name: spread([other / own for own, other in zip(times[name], theirs, strict=True)])
            for name in ("seedbed_cold", "seedbed_warm")
        },
    }


def _texts(num_files: int) -> list[str]:
    files = sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"))
    files = [path for path in files if "site-packages" not in path.parts]
    return [path.read_text(encoding="utf-8", errors="replace") for path in files[:num_files]]


def _measured(tokenizer: Path, corpus: Path, *, ours_first: bool) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, __file__, str(tokenizer), str(corpus), str(int(ours_first))],
        env=os.environ | ONE_THREAD,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def _child(tokenizer_file: str, corpus: str, ours_first: str) -> None:
    import tokenizers

    texts = json.loads(Path(corpus).read_text(encoding="utf-8"))
    batches = [texts[at : at + BATCH_TEXTS] for at in range(0, len(texts), BATCH_TEXTS)]
    ours = load_tokenizer(tokenizer_file)
    ours.encode_flat([])  # not the checks before the first use
    theirs = tokenizers.Tokenizer.from_file(tokenizer_file)
    theirs.encode_special_tokens = True

    def encode_ours(batch: list[str]) -> list[int]:
        return ours.encode_flat(batch)[0].tolist()

    def encode_theirs(batch: list[str]) -> list[int]:
        encodings = theirs.encode_batch_fast(batch, add_special_tokens=False)
        return [id for encoding in encodings for id in encoding.ids]

    order = {"seedbed_cold": encode_ours, "tokenizers": encode_theirs}
    if ours_first == "0":
        order = dict(reversed(order.items()))
    order["seedbed_warm"] = encode_ours
    timed = {name: _timed(encode, batches) for name, encode in order.items()}
    (digest,) = {digest for _, digest, _ in timed.values()}
    seconds = {name: timed[name][0] for name in ("tokenizers", "seedbed_cold", "seedbed_warm")}
    print(json.dumps({"seconds": seconds, "digest": digest, "tokens": timed["tokenizers"][2]}))


def _timed(encode: Callable[[list[str]], list[int]], batches: Sequence[list[str]]) -> tuple[float, str, int]:
    """Seconds, the hash of all ids, and their number."""
    hasher, seconds, num_ids = hashlib.sha256(), 0.0, 0
    for batch in batches:
        started = time.perf_counter()
        ids = encode(batch)
        seconds += time.perf_counter() - started
        hasher.update(json.dumps(ids).encode())
        num_ids += len(ids)
    return seconds, hasher.hexdigest(), num_ids


if __name__ == "__main__":
    _child(*sys.argv[1:])
