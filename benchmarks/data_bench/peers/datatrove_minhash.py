"""MinHash clusters of a JSONL file with datatrove: CORPUS OUT. Run by the peers' Python.

The first three stages as datatrove's documentation sets them up: 5-grams, 14 buckets of 8 hashes, 64 bits.
Prints the seconds of each, and for every document the first one of its cluster.
"""

import contextlib
import io
import json
import struct
import sys
import time
from pathlib import Path

from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets, MinhashDedupCluster
from datatrove.utils.hashing import HashConfig
from datatrove.utils.typeshelper import Languages

NUM_BUCKETS = 14


def cluster(texts: list[str], out: Path) -> dict[str, float]:
    """Seconds of the three stages, each after the other, one process."""
    config = MinhashConfig(
        n_grams=5,
        num_buckets=NUM_BUCKETS,
        hashes_per_bucket=8,
        hash_config=HashConfig(precision=64),
    )
    documents = [Document(text=text, id=str(number)) for number, text in enumerate(texts)]
    stages = {
        "signatures": (
            [documents, MinhashDedupSignature(str(out / "signatures"), config, language=Languages.english)],
            1,
        ),
        "buckets": (
            [MinhashDedupBuckets(str(out / "signatures"), str(out / "buckets"), config=config)],
            NUM_BUCKETS,
        ),
        "clusters": (
            [MinhashDedupCluster(str(out / "buckets"), str(out / "clusters"), config, save_cluster_id=True)],
            1,
        ),
    }
    seconds = {}
    for name, (pipeline, tasks) in stages.items():
        executor = LocalPipelineExecutor(
            pipeline=pipeline, tasks=tasks, workers=1, logging_dir=str(out / f"logs-{name}")
        )
        started = time.perf_counter()
        with contextlib.redirect_stderr(io.StringIO()):  # a page of log per task
            executor.run()
        seconds[name] = time.perf_counter() - started
    return seconds


def first_of_cluster(num_documents: int, out: Path) -> list[int]:
    """For every document the first one of its cluster."""
    labels = list(range(num_documents))
    firsts: dict[int, int] = {}
    for file in (out / "clusters").glob("*.clusters"):
        for document, number in sorted(struct.iter_unpack("<II", file.read_bytes())):
            labels[document] = firsts.setdefault(number, document)
    return labels


def main() -> None:
    """Cluster a few texts first, so that what is loaded on first use is not timed."""
    corpus, out = Path(sys.argv[1]), Path(sys.argv[2])
    with open(corpus, encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    cluster(texts[:2], out / "warm-up")
    stages = cluster(texts, out / "timed")
    result = {
        "seconds": sum(stages.values()),
        "stages": stages,
        "labels": first_of_cluster(len(texts), out / "timed"),
    }
    sys.stdout.write("\n" + json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
