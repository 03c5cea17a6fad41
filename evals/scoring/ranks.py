"""Scoring on several processes of this machine, each of which has the model whole.

Work is cut into blocks, block i goes to rank i mod W, and the results are put together in order. Ranks do not
talk to each other: a job is a file that all read, an answer a file of each, so that no rank can wait for one
that died. `worker.py` is what they run.
"""

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from evals.scoring.backend import Advance, Span, SpanScore, grouped
from models.generation import Completion, Request
from seedbed.errors import DataError, SeedbedError, UsageError
from seedbed.files import write_json
from training.launch import LocalLauncher, Worker, WorkerSpec
from training.run_directory import read_json

BLOCK = 32
"""Spans or requests that are dealt out together; spans that share a context stay together."""
POLL_S = 0.02


class RanksBackend:
    """`num_ranks` processes that score with `checkpoint`; leave it (it is a context) to end them."""

    def __init__(self, checkpoint: Path, num_ranks: int, *, batch_size: int, context: int) -> None:
        if num_ranks < 1:
            raise UsageError(f"{num_ranks} ranks", "use 1 or more")
        self.num_ranks, self.context, self._jobs = num_ranks, context, 0
        self._folder = tempfile.TemporaryDirectory(prefix="seedbed-eval-")
        self.path = Path(self._folder.name)
        threads = max(1, len(os.sched_getaffinity(0)) // num_ranks)
        self.workers = [
            LocalLauncher().start(
                WorkerSpec(
                    f"rank {rank}",
                    "evals.scoring.worker",
                    [str(checkpoint), str(self.path), str(rank), str(num_ranks), str(batch_size)],
                    self.path / f"rank-{rank}.log",
                    {"OMP_NUM_THREADS": str(threads)},
                )
            )
            for rank in range(num_ranks)
        ]

    def __enter__(self) -> "RanksBackend":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers:
            worker.kill()
        self._folder.cleanup()

    def score(
        self, spans: Sequence[Span], preamble: int = 0, advance: Advance | None = None
    ) -> list[SpanScore]:
        """See `Backend`."""
        blocks: list[list[int]] = []
        for group in grouped(spans):
            if not blocks or len(blocks[-1]) >= BLOCK:
                blocks.append([])
            blocks[-1] += group
        job = {"score": [[asdict(spans[number]) for number in block] for block in blocks]}
        answers = self._do({**job, "preamble": preamble}, blocks, advance)
        return [SpanScore(*answers[number]) for number in range(len(spans))]

    def complete(self, requests: Sequence[Request], advance: Advance | None = None) -> list[Completion]:
        """See `Backend`."""
        numbers = list(range(len(requests)))
        blocks = [numbers[start : start + BLOCK] for start in range(0, len(numbers), BLOCK)]
        job = {"complete": [[_as_json(requests[number]) for number in block] for block in blocks]}
        answers = self._do(job, blocks, advance)
        return [Completion(*answers[number]) for number in numbers]

    def _do(self, job: dict[str, Any], blocks: list[list[int]], advance: Advance | None) -> dict[int, Any]:
        """Give the job to all ranks and put their answers together, by the number of what was asked."""
        number, self._jobs = self._jobs, self._jobs + 1
        write_json(self.path / f"job-{number}.json", job, durable=False)
        answers: dict[int, Any] = {}
        for rank, worker in enumerate(self.workers):
            found = self._await(worker, self.path / f"answer-{number}-{rank}.json")
            own = [index for block in blocks[rank :: self.num_ranks] for index in block]
            answers |= zip(own, found, strict=True)
            if advance:
                advance(len(own))
        return answers

    def _await(self, worker: Worker, answer: Path) -> list[Any]:
        while not answer.exists():
            code = worker.poll()
            if code is not None and not answer.exists():
                log = (self.path / f"{worker.name.replace(' ', '-')}.log").read_text(errors="replace")
                words = log.strip().splitlines()[-1:] or ["it said nothing"]
                raise SeedbedError(
                    f"{worker.name} of the evaluation ended with {code}: {words[0]}", "try it with --ranks 1"
                )
            time.sleep(POLL_S)
        found = read_json(answer)
        if "error" in found:
            kind = DataError if found["is_data"] else UsageError
            raise kind(found["error"], found["fix"])
        return list(found["answers"])


def _as_json(request: Request) -> dict[str, Any]:
    return {**asdict(request), "prompt": list(request.prompt), "stop_ids": sorted(request.stop_ids)}
