"""Text to verified shards, filters off, beside datatrove's DocumentTokenizer and `datasets.map`.

The same JSONL file, the same byte-level BPE of 32,768 tokens, one core; every time is of a fresh process
without its imports. Also beside gigatoken alone, which encodes and keeps nothing: its own reader on the same
file, and the same texts when they are in memory already. Both load their vocabulary, as a build does.
"""

import json
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from data_bench.peer import peer_python, run_peer
from data_bench.spread import spread

from data.tokenizers import train_tokenizer

PEERS = Path(__file__).parent / "peers"
PASSAGE_CHARACTERS = 4000
VOCAB_SIZE = 32768


def run(quick: bool) -> dict[str, Any]:
    """Rates in MB/s and the ratios of each interleaved round."""
    rounds = 2 if quick else 3
    with tempfile.TemporaryDirectory() as folder:
        corpus, tokenizer = Path(folder, "corpus.jsonl"), Path(folder, "tokenizer.json")
        texts = passages(quick)
        num_bytes = sum(len(text.encode()) for text in texts)
        with open(corpus, "w", encoding="utf-8") as file:
            for number, text in enumerate(texts):
                file.write(json.dumps({"id": f"passage-{number}", "text": text}) + "\n")
        tokenizer.write_bytes(train_tokenizer(iter(texts[:3000]), VOCAB_SIZE).to_bytes())
        peers = ["datatrove_tokenize", "datasets_map"] if peer_python() else []
        rates: dict[str, list[float]] = {
            name: [] for name in ("seedbed", "gigatoken_file", "gigatoken_memory", *peers)
        }
        counts: dict[str, set[int]] = {name: set() for name in rates}
        for turn in range(rounds):
            for name in rates:
                out = Path(folder, f"{name}-{turn}")
                if name in peers:
                    result = run_peer(PEERS / f"{name}.py", str(corpus), str(tokenizer), str(out))
                else:
                    result = _own(name, corpus, tokenizer, out)
                rates[name].append(num_bytes / 1e6 / result["seconds"])
                counts[name].add(result["tokens"])
    faster = [max(rates[name][turn] for name in peers) for turn in range(rounds)] if peers else []
    ours = rates["seedbed"]
    return {
        "megabytes": num_bytes / 1e6,
        "documents": len(texts),
        "rounds": rounds,
        "mb_per_s": {name: spread(values) for name, values in rates.items()},
        "tokens": {name: sorted(values) for name, values in counts.items()},
        "over_faster_peer": spread([a / b for a, b in zip(ours, faster, strict=True)])
        if peers
        else "no peers",
        "share_of_bare_encode_of_the_file": _ratio(ours, rates["gigatoken_file"]),
        "share_of_bare_encode_in_memory": _ratio(ours, rates["gigatoken_memory"]),
    }


def _ratio(ours: list[float], others: list[float]) -> dict[str, Any]:
    return spread([a / b for a, b in zip(ours, others, strict=True)])


def passages(quick: bool) -> list[str]:
    """Python files of this environment, the standard library first, in passages of a web page's size."""
    texts: dict[str, None] = {}
    num_characters, limit = 0, 10_000_000 if quick else 90_000_000
    for root in ("stdlib", "purelib"):
        for file in sorted(Path(sysconfig.get_path(root)).rglob("*.py")):
            text = file.read_text(encoding="utf-8", errors="ignore").replace("\0", "")
            cuts = range(0, len(text), PASSAGE_CHARACTERS)
            texts |= {part: None for at in cuts if (part := text[at : at + PASSAGE_CHARACTERS]).strip()}
            num_characters += len(text)
            if num_characters > limit:
                return list(texts)
    return list(texts)


def _own(name: str, corpus: Path, tokenizer: Path, out: Path) -> dict[str, Any]:
    script = {"seedbed": _SEEDBED, "gigatoken_file": _FILE, "gigatoken_memory": _MEMORY}[name]
    command = [sys.executable, "-P", "-c", script, str(corpus), str(tokenizer), str(out)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


_SEEDBED = """
import json, sys, time
import gigatoken, awkward
from data.build import build_dataset
from data.config import DataConfig
from data.shards import Dataset
corpus, tokenizer, out = sys.argv[1:]
config = DataConfig(source=corpus, tokenizer=tokenizer, holdout_fraction=0, near_duplicate_threshold=0)
started = time.perf_counter()
build_dataset(config, out)
seconds = time.perf_counter() - started
split = Dataset.open(out, verify=True).split("train")
print(json.dumps({"seconds": seconds, "tokens": split.num_tokens - split.num_documents}))
"""

_FILE = """
import json, sys, time
import awkward, gigatoken
corpus, tokenizer, _ = sys.argv[1:]
started = time.perf_counter()
encoder = gigatoken.Tokenizer(tokenizer)
ids = encoder.encode_files(gigatoken.JsonlFileSource([corpus]), parallel=False)
seconds = time.perf_counter() - started
print(json.dumps({"seconds": seconds, "tokens": int(awkward.count(ids))}))
"""

_MEMORY = """
import json, sys, time
import awkward, gigatoken
corpus, tokenizer, _ = sys.argv[1:]
texts = [json.loads(line)["text"] for line in open(corpus, encoding="utf-8")]
started = time.perf_counter()
encoder = gigatoken.Tokenizer(tokenizer)
ids = encoder.encode_batch(texts, parallel=False)
seconds = time.perf_counter() - started
print(json.dumps({"seconds": seconds, "tokens": int(awkward.count(ids))}))
"""
