"""Writes the table that the tests hold the quality filters to: documents, and what datatrove says of each.

    SEEDBED_PEERS=... python -P benchmarks/data_bench/filter_parity.py tests/golden/filter_parity.json

Of many made pages it keeps, for every verdict of every filter, the few shortest.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent.parent))

from data_bench.filter_corpus import documents
from data_bench.filters import REASONS, judge_with_datatrove

NUM_PAGES = 2000
REJECTED_EACH, KEPT_EACH = 4, 12


def main(path: str) -> None:
    """Write the table to `path`."""
    texts = documents(NUM_PAGES, num_files=0)
    result, verdicts = judge_with_datatrove(texts)
    rows = [
        {"text": text, **{name: _verdict(text, verdicts[name][index]) for name in verdicts}}
        for index, text in enumerate(texts)
    ]
    chosen: dict[int, None] = {}
    for name in verdicts:
        kinds: dict[str, list[int]] = {}
        for index in sorted(range(len(rows)), key=lambda index: len(rows[index]["text"])):
            kinds.setdefault(rows[index][name].split(":")[0], []).append(index)
        for kind, members in sorted(kinds.items()):
            chosen |= dict.fromkeys(members[: KEPT_EACH if kind in ("kept", "edited") else REJECTED_EACH])
    table: dict[str, Any] = {
        "datatrove": result["version"],
        "documents": [rows[index] for index in sorted(chosen)],
    }
    Path(path).write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{len(chosen)} documents", file=sys.stderr)


def _verdict(text: str, verdict: str | list[str]) -> str:
    """Our name of the reason, "kept", or "edited:" and the digest of what is left."""
    if isinstance(verdict, list):
        return REASONS[verdict[0]]
    return "kept" if verdict == text else "edited:" + hashlib.sha256(verdict.encode()).hexdigest()


if __name__ == "__main__":
    main(sys.argv[1])
