"""MinHash signatures and clusters beside datatrove's: speed on one core, and which planted copies are joined.

The corpus is the standard library in passages that have little in common, among which copies are
planted: exact ones, and ones with single words replaced, at several similarities. Both sides take the same
texts from memory, make signatures (word 5-grams, 14 bands of 8 rows), and cluster. They must agree on copies
of at least 0.95 and on strangers; in between the banding joins by chance, and the shares are reported.
"""

import json
import re
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from data_bench.peer import peer_python, run_peer
from data_bench.spread import spread
from numpy.typing import NDArray

from data.minhash import MinHasher
from data.near_duplicates import band_keys, candidate_probability, cluster_duplicates
from data.shingles import hash_ngrams, hash_words, split_words
from seedbed.randomness import generator

PEER = Path(__file__).parent / "peers" / "datatrove_minhash.py"
PASSAGE_CHARACTERS = 4000
MAX_STRANGER_SIMILARITY = 0.1
# Words replaced in a copy: 0 is an exact one.
REPLACED_WORDS = (0, 1, 2, 6, 10, 16, 24)
REPLACEABLE = re.compile(r"(?<!\S)[A-Za-z]{4,}(?!\S)")
BATCH_DOCUMENTS = 256


def run(quick: bool) -> dict[str, Any]:
    """Rates in MB/s, the ratio of each interleaved round, and what was joined."""
    rounds, num_passages = (2, 300) if quick else (3, 1000)
    texts, origins = corpus(num_passages)
    num_bytes = sum(len(text.encode()) for text in texts)
    with_peer = peer_python() is not None
    ours: list[dict[str, float]] = []
    peers: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "corpus.jsonl")
        rows = (json.dumps({"id": str(number), "text": text}) for number, text in enumerate(texts))
        file.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
        cluster(texts[:100])
        for turn in range(rounds):
            labels, seconds = cluster(texts)
            ours.append(seconds)
            if with_peer:
                peers.append(run_peer(PEER, str(file), str(Path(folder, f"datatrove-{turn}"))))
    result = {
        "megabytes": num_bytes / 1e6,
        "documents": len(texts),
        "rounds": rounds,
        "seedbed_mb_per_s": spread([num_bytes / 1e6 / sum(seconds.values()) for seconds in ours]),
        "seedbed_seconds": {name: spread([seconds[name] for seconds in ours]) for name in ours[0]},
        "planted": planted(texts, origins, {"seedbed": labels.tolist()}),
    }
    if not with_peer:
        return result | {"over_datatrove": "no peers"}
    return result | {
        "datatrove_mb_per_s": spread([num_bytes / 1e6 / peer["seconds"] for peer in peers]),
        "datatrove_seconds": {
            name: spread([peer["stages"][name] for peer in peers]) for name in peers[0]["stages"]
        },
        "over_datatrove": spread(
            [peer["seconds"] / sum(seconds.values()) for seconds, peer in zip(ours, peers, strict=True)]
        ),
        "planted": planted(texts, origins, {"seedbed": labels.tolist(), "datatrove": peers[0]["labels"]}),
    }


def cluster(texts: list[str]) -> tuple[NDArray[np.int64], dict[str, float]]:
    """The first document of each one's cluster, and the seconds that it took."""
    started = time.perf_counter()
    hasher = MinHasher()
    batches = [texts[start : start + BATCH_DOCUMENTS] for start in range(0, len(texts), BATCH_DOCUMENTS)]
    keys = [band_keys(hasher.signatures(batch)) for batch in batches]
    signed = time.perf_counter()
    labels = cluster_duplicates(keys)
    return labels, {"signatures": signed - started, "clusters": time.perf_counter() - signed}


def corpus(num_passages: int) -> tuple[list[str], list[tuple[int, int]]]:
    """Texts in a fixed random order, each with its passage's number and how many words were replaced.

    The passage itself has -1.
    """
    draws = generator(0, "minhash benchmark")
    planted = []
    for number, passage in enumerate(strangers(num_passages)):
        planted.append((passage, (number, -1)))
        for count in REPLACED_WORDS if number % 10 == 0 else ():
            planted.append((with_replaced(passage, count, draws), (number, count)))
    shuffled = [planted[place] for place in draws.permutation(len(planted))]
    return [text for text, _ in shuffled], [origin for _, origin in shuffled]


def strangers(num_passages: int) -> list[str]:
    """Passages of which no two share more than MAX_STRANGER_SIMILARITY of their 5-grams.

    Numbers are taken for equal here, as datatrove takes them.
    """
    chosen: list[str] = []
    seen: dict[int, list[int]] = {}
    sizes: list[int] = []
    for passage in passages():
        shingles = set(hash_ngrams(hash_words([re.sub(r"\d+", "0", passage)]), 5).hashes.tolist())
        if len(shingles) < 200 or len(REPLACEABLE.findall(passage)) < 2 * max(REPLACED_WORDS):
            continue
        shared: dict[int, int] = {}
        for shingle in shingles:
            for other in seen.get(shingle, ()):
                shared[other] = shared.get(other, 0) + 1
        if any(
            count > MAX_STRANGER_SIMILARITY * (len(shingles) + sizes[other] - count)
            for other, count in shared.items()
        ):
            continue
        for shingle in shingles:
            seen.setdefault(shingle, []).append(len(chosen))
        chosen.append(passage)
        sizes.append(len(shingles))
        if len(chosen) == num_passages:
            break
    return chosen


def passages() -> Iterator[str]:
    """The standard library in passages of a web page's size, cut between words."""
    for file in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if "site-packages" in file.parts:
            continue
        text = file.read_text(encoding="utf-8", errors="ignore").replace("\0", "")
        cuts = [match.end() for match in re.finditer(rf"(?s).{{{PASSAGE_CHARACTERS}}}\S*\s", text)]
        yield from (text[start:end] for start, end in zip([0, *cuts], cuts, strict=False))


def with_replaced(text: str, count: int, draws: np.random.Generator) -> str:
    """`text` with `count` of its longer words replaced by new ones, far from each other."""
    spans = [match.span() for match in REPLACEABLE.finditer(text)]
    places = np.linspace(0, len(spans) - 1, count + 2).astype(int)[1:-1]
    for start, end in sorted({spans[place] for place in places}, reverse=True):
        new = "".join(chr(97 + letter) for letter in draws.integers(26, size=12))
        text = text[:start] + new + text[end:]
    return text


def planted(texts: list[str], origins: list[tuple[int, int]], labels: dict[str, list[int]]) -> dict[str, Any]:
    """Which copies each side joined with their passage, and whether they agree where they must."""
    passage_of = {number: place for place, (number, count) in enumerate(origins) if count < 0}
    by_count: dict[int, list[tuple[int, int]]] = {}
    for place, (number, count) in enumerate(origins):
        if count >= 0:
            by_count.setdefault(count, []).append((place, passage_of[number]))
    copies, must = {}, set(passage_of.values())
    for count, pairs in sorted(by_count.items()):
        similarity = np.array([jaccard(texts[one], texts[other]) for one, other in pairs])
        must |= {copy for (copy, _), value in zip(pairs, similarity, strict=True) if value >= 0.95}
        copies[str(count)] = {
            "pairs": len(pairs),
            "similarity": spread(similarity.tolist())["median"],
            "expected_joined": float(np.mean([candidate_probability(value, 14, 8) for value in similarity])),
        } | {
            name: float(np.mean([own[one] == own[other] for one, other in pairs]))
            for name, own in labels.items()
        }
    certain = sorted(must)
    families = {name: partition(certain, [own[place] for place in certain]) for name, own in labels.items()}
    truth = partition(certain, [origins[place][0] for place in certain])
    return {
        "copies_by_words_replaced": copies,
        "documents_that_must_agree": len(certain),
        "clusters_of_these_as_planted": {name: family == truth for name, family in families.items()},
    }


def partition(places: list[int], labels: list[int]) -> set[frozenset[int]]:
    """The sets of places with the same label."""
    sets: dict[int, set[int]] = {}
    for place, label in zip(places, labels, strict=True):
        sets.setdefault(label, set()).add(place)
    return {frozenset(members) for members in sets.values()}


def jaccard(one: str, other: str) -> float:
    """The share of word 5-grams in common, exactly."""
    first, second = (
        {*zip(*(words[at:] for at in range(5)), strict=False)} for words in map(split_words, (one, other))
    )
    return len(first & second) / len(first | second)
