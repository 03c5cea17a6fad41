"""Peak memory of ranks beside the plan's."""

import statistics
import sys
from typing import Any

from plan_bench.cases import MEMORY, QUICK
from plan_bench.ranks import run_ranks

from training.memory_plan import memory_by_part

BAR = {"largest": 0.10, "median": 0.05}
STEPS = 3


def run(quick: bool) -> dict[str, Any]:
    """MiB measured and planned for every configuration; `error` is planned over measured, less one."""
    rows = {}
    for name, config in QUICK if quick else MEMORY:
        ranks = run_ranks(config, STEPS)
        measured = max(rank["peak_bytes"] for rank in ranks)
        parts = memory_by_part(config, saves=False)
        rows[name] = {
            "measured_mib": round(measured / 2**20, 1),
            "planned_mib": round(parts["total"] / 2**20, 1),
            "error": round(parts["total"] / measured - 1, 4),
            "parts_mib": {part: round(size / 2**20, 1) for part, size in parts.items() if size},
            "by_step_mib": [round(peak / 2**20, 1) for peak in ranks[0]["peaks"]],
        }
        print(f"{name}: {rows[name]}", file=sys.stderr)
    errors = [abs(row["error"]) for row in rows.values()]
    return {
        "bar": BAR,
        "largest_error": max(errors),
        "median_error": statistics.median(errors),
        "configurations": rows,
    }
