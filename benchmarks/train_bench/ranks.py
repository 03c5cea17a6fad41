"""Two ranks of one thread each beside one rank of one thread: the same run, a batch of four micro-batches.

Under fsdp gathered parameters stay until the backward, as in the shipped recipes for models of this size.
"""

import tempfile
from pathlib import Path
from typing import Any

from train_bench.runs import sized, timed_run

BAR = 1.8
ENGINES = ("ddp", "fsdp")


def run(quick: bool) -> dict[str, Any]:
    """Tokens per second, and two ranks over one in the same round, for each engine."""
    from data_bench.spread import spread

    steps, warm_up, rounds = (2, 2, 1) if quick else (4, 1, 3)
    rates: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            for engine in ENGINES:
                for ranks in (1, 2) if number % 2 else (2, 1):
                    settings = {
                        **sized(quick, 4),
                        "engine.name": engine,
                        "engine.num_ranks": ranks,
                        "engine.threads_per_rank": 1,
                        "engine.reshard_after_forward": False,
                    }
                    path = Path(folder, f"{number}-{engine}-{ranks}")
                    found = timed_run(path, settings, steps=steps, warm_up=warm_up)
                    rates.setdefault((engine, ranks), []).append(found["tokens_per_s"])
    return {
        engine: {
            "tokens_per_s": {str(ranks): spread(rates[engine, ranks]) for ranks in (1, 2)},
            "two_over_one": spread(
                [two / one for one, two in zip(rates[engine, 1], rates[engine, 2], strict=True)]
            ),
            "bar": BAR,
        }
        for engine in ENGINES
    }
