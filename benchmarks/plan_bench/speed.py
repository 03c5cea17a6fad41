"""Tokens per second of ranks beside those that are planned from what this machine reaches."""

import statistics
import sys
from typing import Any

from plan_bench.cases import QUICK, SPEED
from plan_bench.ranks import run_ranks

from training.devices import device_at_hand
from training.speed_plan import step_time


def run(quick: bool) -> dict[str, Any]:
    """Measured and planned for each configuration; `error` is planned over measured, less one."""
    rows = {}
    steps, warm_up = (2, 1) if quick else (5, 2)
    for name, config in QUICK if quick else SPEED:
        device = device_at_hand(config)
        assert device is not None
        ranks = run_ranks(config, warm_up + steps)
        seconds = statistics.median(ranks[0]["step_s"][warm_up:])
        planned = step_time(config, device, device.devices_per_node)
        rows[name] = {
            "tokens_per_s": round(config.batch.tokens_per_step / seconds, 1),
            "planned_tokens_per_s": round(config.batch.tokens_per_step / planned.total_s, 1),
            "error": round(seconds / planned.total_s - 1, 4),
            "measured_step_s": round(seconds, 4),
            "step": planned.record(),
            "rates": {
                "products_flops": device.fp32_flops,
                "memory_bytes_per_s": device.memory_bytes_per_s,
                "link_bytes_per_s": device.link_bytes_per_s,
            },
        }
        print(f"{name}: {rows[name]}", file=sys.stderr)
    errors = [abs(row["error"]) for row in rows.values()]
    return {
        "largest_error": max(errors),
        "median_error": statistics.median(errors),
        "configurations": rows,
    }
