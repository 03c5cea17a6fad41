"""CartPole by the policy gradients of the family: five seeds of each method, and what they came to."""

import statistics
import time
from typing import Any

import torch

from training.rl.exercises.cartpole import METHODS, outcome

SEEDS, ITERATIONS = 5, 100


def run(quick: bool) -> dict[str, Any]:
    """The mean return of 100 episodes after learning (500 is the most; 475 is called solved)."""
    torch.set_num_threads(1)
    found = {}
    for method in METHODS:
        started, seeds = time.perf_counter(), []
        for seed in range(1 if quick else SEEDS):
            seeds.append(outcome(method, seed, 3 if quick else ITERATIONS))
        after = [one["after"] for one in seeds]
        found[method] = {
            "before": [round(one["curve"][0], 1) for one in seeds],
            "after": after,
            "least": min(after),
            "median": statistics.median(after),
            "seconds_each": round((time.perf_counter() - started) / len(seeds), 1),
        }
    return found
