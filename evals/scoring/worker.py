"""One rank of an evaluation: `python -P -m evals.scoring.worker CHECKPOINT FOLDER RANK RANKS BATCH_SIZE`.

It waits for `job-N.json`, works on the blocks that are its own, and writes `answer-N-RANK.json`; it ends with
the process that started it.
"""

import itertools
import os
import sys
import time
from pathlib import Path
from typing import Any

from data.tokenizers import load_tokenizer
from evals.scoring.backend import Span
from evals.scoring.cached import CachedBackend
from models.generation import Request, SamplingOptions
from seedbed.errors import DataError, SeedbedError
from seedbed.files import write_json
from training.checkpoint.models import load_model
from training.processes import answer_for_stacks, stop_when_parent_dies
from training.run_directory import read_json

POLL_S = 0.02


def main() -> None:
    """Work on one job after the other."""
    checkpoint, folder = Path(sys.argv[1]), Path(sys.argv[2])
    rank, num_ranks, batch_size = map(int, sys.argv[3:6])
    answer_for_stacks()
    stop_when_parent_dies()
    parent = os.getppid()
    loaded = load_model(checkpoint)
    decode = load_tokenizer(loaded.tokenizer_path).decode
    backend = CachedBackend(loaded.decoder(), batch_size=batch_size, decode=decode)
    for number in itertools.count():
        path = folder / f"job-{number}.json"
        while not path.exists():
            if os.getppid() != parent:
                return
            time.sleep(POLL_S)
        job = read_json(path)
        answer: dict[str, Any]
        try:
            answer = {"answers": _answers(backend, job, rank, num_ranks)}
        except SeedbedError as error:
            answer = {"error": error.message, "fix": error.fix, "is_data": isinstance(error, DataError)}
        write_json(folder / f"answer-{number}-{rank}.json", answer, durable=False)


def _answers(backend: CachedBackend, job: dict[str, Any], rank: int, num_ranks: int) -> list[Any]:
    """Of this rank's blocks, one after the other."""
    spans = [
        Span(row["item"], tuple(row["context"]), tuple(row["continuation"]))
        for block in job.get("score", [])[rank::num_ranks]
        for row in block
    ]
    requests = [_request(row) for block in job.get("complete", [])[rank::num_ranks] for row in block]
    scores = backend.score(spans, job["preamble"]) if spans else []
    done = backend.complete(requests) if requests else []
    return [*scores, *([one.tokens, one.log_probs, one.finish] for one in done)]


def _request(row: dict[str, Any]) -> Request:
    return Request(
        row["prompt"],
        row["max_new_tokens"],
        SamplingOptions(**row["options"]),
        row["seed"],
        frozenset(row["stop_ids"]),
        tuple(row["stop_strings"]),
    )


if __name__ == "__main__":
    main()
