"""What datatrove's quality filters say of documents, and how long they take. Runs in the peers' environment.

    python datatrove_filters.py TEXTS.json DECISIONS.json

TEXTS.json: a list of texts. DECISIONS.json: for each filter, and for "all" in order, what became of each
text: a list of one string, the reason, or the text, edited or not. Prints {"version": ..., "seconds":
{filter: s}}; the seconds begin after a warm-up and leave out reading and writing.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)

FILTERS = {
    "gopher_quality": GopherQualityFilter(),
    "gopher_repetition": GopherRepetitionFilter(),
    "c4": C4QualityFilter(),
    "fineweb": FineWebQualityFilter(),
}
WARM_UP = 20


def judge(filters: Sequence[Callable], text: str) -> str | list[str]:
    """The text that is kept, or [reason]; what a filter cannot judge is the reason "error"."""
    document = Document(text=text, id="")
    for each in filters:
        try:
            verdict = each.filter(document)
        except (ZeroDivisionError, IndexError) as error:
            return [f"error {type(error).__name__}"]
        if verdict is not True:
            return [verdict[1]]
    return document.text


def main(texts_path: str, decisions_path: str) -> None:
    texts = json.loads(Path(texts_path).read_text(encoding="utf-8"))
    chains = {**{name: [each] for name, each in FILTERS.items()}, "all": list(FILTERS.values())}
    seconds, decisions = {}, {}
    for name, chain in chains.items():
        for text in texts[:WARM_UP]:
            judge(chain, text + " ")
        begun = time.perf_counter()
        decisions[name] = [judge(chain, text) for text in texts]
        seconds[name] = time.perf_counter() - begun
    Path(decisions_path).write_text(json.dumps(decisions), encoding="utf-8")
    print(json.dumps({"version": version("datatrove"), "seconds": seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
