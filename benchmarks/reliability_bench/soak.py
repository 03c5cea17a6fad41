"""Twenty minutes of the demonstration's training with a fault every two: what the run says of its own time.

The mix, drawn in an order from a seed: four ranks killed, two stopped, two that crash, one that is asked to
save and end as by a host that is drained. From the time that each cost, and from what a save costs, follows
the share of its time that a job on 16,384 devices would train, at the 1.8 hours between failures that Meta's
research clusters have at that size (arXiv 2410.21680), were it to recover as fast as these two ranks.
"""

import random
import tempfile
from pathlib import Path
from typing import Any

MIX = ["SIGKILL"] * 4 + ["SIGSTOP"] * 2 + ["SIGSEGV"] * 2 + ["SIGTERM"]
BARS_S = {"SIGKILL": 30, "SIGSEGV": 30, "SIGTERM": 30, "SIGSTOP": 35 + 30}
EVERY_S = 120
MTTF_S = 1.8 * 3600
PUBLISHED = {"Llama 3, 16,384 devices": "above 0.90", "ByteRobust, 9,600 devices": 0.97}


def run(quick: bool) -> dict[str, Any]:
    """Goodput as the run reports it, time by cause, and the expected share at 16,384 devices."""
    from reliability_bench.supervised import run_with_faults

    from training.goodput import account, save_costs, time_by_cause
    from training.metrics import surviving_rows
    from training.run_directory import read_json
    from training.save_interval import effective_share, young_daly_s

    mix, every_s = (["SIGKILL", "SIGTERM"], 15) if quick else (MIX, EVERY_S)
    random.Random(0).shuffle(mix)
    faults = [
        {"signal": name, "rank": number % 2, "at_s": every_s * (number + 1), "after_steps": 5}
        for number, name in enumerate(mix)
    ]
    limit_s = every_s * (len(mix) + 1)
    sets = [
        "run.steps=100000",
        # How often to save follows from how often something fails.
        f"checkpoint.mttf_h={every_s / 3600}",
        f"timeouts.job_s={limit_s}",
        f"timeouts.collective_s={min(600, limit_s - 1)}",
        *(["timeouts.heartbeat_s=10"] if quick else []),
        "tracking.mlflow=false",
        "restarts.infrastructure=100",
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        # It ends when its time is over, with a checkpoint.
        happened = run_with_faults(path, sets, faults, code=5)
        times, rows = time_by_cause(path), surviving_rows(path)
        step = read_json(path / "status.json").get("step")
    costs = save_costs(rows)
    lost_s = sum(times.get(cause, 0.0) for cause in ("infrastructure", "preemptions", "program"))
    allowed_s = float(sum(BARS_S[fault["signal"]] for fault in happened))
    save_s = costs["blocked_s"] + max(0.0, costs["slowed_s"])
    expected = effective_share(young_daly_s(save_s, MTTF_S), save_s, lost_s / len(happened), MTTF_S)
    return {
        "faults": [fault["signal"] for fault in happened],
        "steps": step,
        "time_s": {cause: round(seconds, 2) for cause, seconds in times.items()},
        "reported": account(times),
        "goodput": round(times["productive"] / times["wall"], 4),
        "lost_to_faults_s": round(lost_s, 1),
        "sum_of_bars_s": allowed_s,
        "save": costs,
        "recovery_s": round(lost_s / len(happened), 2),
        "expected_at_16384_devices": round(expected, 4),
        "published": PUBLISHED,
    }
