"""What exact mode costs on two ranks of one thread each.

Beside the same engine as it is without: ranks share gradients once in a step, and AdamW is fused. `lanes`
is how often a rank shares them in a step of exact mode.
"""

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from train_bench.runs import sized, timed_run

BAR = 0.15
NUM_RANKS = 2


class Case(NamedTuple):
    """A form of exact mode."""

    accumulation: int
    """Micro-batches of a rank in a step."""
    lanes: int
    """Leaves of a rank in a step."""


CASES = (Case(1, 1), Case(8, 8), Case(8, 1))


def run(quick: bool) -> dict[str, Any]:
    """Seconds of a step with and without, and the cost in each round, by engine, accumulation and lanes."""
    from data_bench.spread import spread

    found: dict[str, Any] = {"bar": {"accumulation": 1, "cost": BAR}}
    with tempfile.TemporaryDirectory() as folder:
        for engine in ("ddp", "fsdp"):
            for case in CASES[::2] if quick else CASES:
                rounds = _rounds(Path(folder), engine, case, quick)
                costs = [plain / exact - 1 for plain, exact in rounds]
                found[f"{engine}, accumulation {case.accumulation}, lanes {case.lanes}"] = {
                    "tokens_per_s": {
                        "plain": spread([plain for plain, _ in rounds]),
                        "exact": spread([exact for _, exact in rounds]),
                    },
                    "cost": spread(costs),
                }
    return found


def _rounds(folder: Path, engine: str, case: Case, quick: bool) -> list[tuple[float, float]]:
    """(tokens per second without, with) in each round."""
    steps, warm_up, rounds = (2, 2, 1) if quick else (6 if case.accumulation > 1 else 20, 3, 5)
    rates: dict[bool, list[float]] = {False: [], True: []}
    for number in range(rounds):
        for exact in (True, False) if number % 2 else (False, True):
            settings = {
                **sized(quick, NUM_RANKS * case.accumulation),
                "engine.name": engine,
                "engine.num_ranks": NUM_RANKS,
                "engine.threads_per_rank": 1,
                "engine.exact": exact,
                **({"engine.exact_lanes": NUM_RANKS * case.lanes} if exact else {}),
            }
            path = folder / f"{engine}-{case.accumulation}-{case.lanes}-{number}-{exact}"
            rates[exact].append(timed_run(path, settings, steps=steps, warm_up=warm_up)["tokens_per_s"])
    return list(zip(rates[False], rates[True], strict=True))
