"""How fast a scaling law is fitted, and whether as well as by a grid of starts, as JSON.

    python -P benchmarks/scaling.py [--quick] [--repeats N] [--points CSV] [--out FILE]

Beside ours: what is usual, L-BFGS-B with numeric gradients from a grid of 4^5 starts, on the very same sum of
Huber losses (Hoffmann et al. 2022 state such a grid). Both are run in turn on one core, with medians of CPU
time. The points are 240 of a known law with noise, or those of a CSV with columns N, D (or C) and loss.
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import huber, logsumexp

from evals.scaling.fit import DELTA, fit
from evals.scaling.intervals import bootstrap
from evals.scaling.laws import Law, Points
from evals.scaling.tables import read_points, without_highest

LAW = Law(("N", "D"), np.array([np.log(1.8), np.log(480.0), 0.35, np.log(2100.0), 0.37]))
NUM_POINTS, BOOTSTRAPS = 240, 1000
GRID = (
    np.linspace(-1.0, 1.5, 4),  # ln E
    np.linspace(0.0, 25.0, 4),  # ln A
    np.linspace(0.0, 2.0, 4),  # alpha
    np.linspace(0.0, 25.0, 4),  # ln B
    np.linspace(0.0, 2.0, 4),  # beta
)


def main() -> int:
    """Fit in turn, and print what was found and how long it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="once, from 32 starts of the grid")
    parser.add_argument("--repeats", type=int, default=3, help="of each")
    parser.add_argument("--points", type=Path, help="a CSV of runs")
    parser.add_argument("--drop-highest", type=int, default=0, help="losses of --points to leave out")
    parser.add_argument("--column", action="append", default=[], help="NAME=COLUMN of --points")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    asked = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    points = synthetic()
    if asked.points:
        named = dict(one.split("=", 1) for one in asked.column)
        points = without_highest(read_points(asked.points, named), asked.drop_highest).points
    starts = list(itertools.product(*GRID))[:: 32 if asked.quick else 1]
    rows: dict[str, list[tuple[float, float]]] = {"ours": [], "grid": [], "bootstraps": []}
    for _ in range(1 if asked.quick else asked.repeats):
        for name, work in (
            ("ours", lambda: fit(points).value),
            ("grid", lambda: by_grid(points, starts)),
            ("bootstraps", lambda: with_bootstraps(points)),
        ):
            started = time.process_time()
            value = work()
            rows[name].append((time.process_time() - started, value))
            print(f"{name}: {rows[name][-1][0]:.2f} s, {value:.12g}", file=sys.stderr)
    seconds = {name: statistics.median(row[0] for row in found) for name, found in rows.items()}
    values = {name: min(row[1] for row in found) for name, found in rows.items()}
    found = {
        "points": len(points),
        "starts_of_grid": len(starts),
        "seconds": seconds,
        "all_seconds": {name: [row[0] for row in found] for name, found in rows.items()},
        "objective": values,
        "grid_over_ours": seconds["grid"] / seconds["ours"],
        "is_same_or_better": values["ours"] <= values["grid"] * (1 + 1e-9),
    }
    text = json.dumps(found, indent=2)
    print(text)
    if asked.out:
        asked.out.write_text(text + "\n")
    return 0


def synthetic() -> Points:
    """Runs of a known law, off by half a percent."""
    draw = np.random.default_rng(0)
    quantities = np.stack(
        [10 ** draw.uniform(7.7, 10.2, NUM_POINTS), 10 ** draw.uniform(9.3, 11.7, NUM_POINTS)], 1
    )
    return Points(quantities, LAW.loss(quantities) * np.exp(0.005 * draw.standard_normal(NUM_POINTS)))


def with_bootstraps(points: Points) -> float:
    """A fit with its intervals."""
    found = fit(points)
    bootstrap(points, found, BOOTSTRAPS)
    return found.value


def by_grid(points: Points, starts: list[tuple[float, ...]]) -> float:
    """The least objective of L-BFGS-B with numeric gradients from every start."""
    size, tokens = np.log(points.quantities).T
    losses = np.log(points.losses)

    def objective(theta: np.ndarray) -> float:
        e, a, alpha, b, beta = theta
        predicted = logsumexp([np.full_like(size, e), a - alpha * size, b - beta * tokens], axis=0)
        return float(huber(DELTA, predicted - losses).sum())

    return min(float(minimize(objective, start, method="L-BFGS-B").fun) for start in starts)


if __name__ == "__main__":
    raise SystemExit(main())
