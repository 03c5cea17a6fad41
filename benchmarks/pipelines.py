"""What a pipeline was said to take before it started beside what it took, stage by stage, as JSON.

    python -P benchmarks/pipelines.py [--pipeline rlhf-demo] [--folder DIR] [--set STAGE.KEY=VALUE] [--twice]
                                      [--out FILE]

Estimates come from what the same work took on this machine before, kept in $SEEDBED_HOME. With --twice the
pipeline is run once for that, and then again from another seed, for the comparison; without it, whatever was
measured before is what it is compared with.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any


def main() -> int:
    """Estimate, run, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pipeline", default="rlhf-demo")
    parser.add_argument("--folder", type=Path, default=Path("runs") / "pipelines-bench")
    parser.add_argument("--set", action="append", default=[], help="as for `seedbed pipeline`")
    parser.add_argument("--twice", action="store_true", help="measure first, then compare with other seeds")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    asked = parser.parse_args()
    sets = list(asked.set)
    if asked.twice:
        _pipeline(asked, sets)
        sets = [*sets, "gpt.run.seed=1"]
    planned = {stage["stage"]: stage for stage in _pipeline(asked, sets, "--dry-run")["stages"]}
    done = _pipeline(asked, sets)
    value = {
        "machine": {"processor": platform.processor() or platform.machine(), "cpus": os.cpu_count()},
        "pipeline": asked.pipeline,
        "sets": sets,
        **compared(planned, done["stages"]),
    }
    text = json.dumps(value, indent=2)
    if asked.out:
        asked.out.write_text(text + "\n")
    print(text)
    return 0


def compared(planned: dict[str, Any], stages: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each stage that was made what was expected and measured, and their ratio; and sums by basis."""
    rows = [
        {
            "stage": stage["stage"],
            "basis": (estimate := planned[stage["stage"]]["estimate"])["basis"],
            "expected_s": estimate["seconds"],
            "measured_s": stage["seconds"],
            "ratio": estimate["seconds"] and estimate["seconds"] / stage["seconds"],
            "expected_device_hours": estimate["device_hours"],
            "measured_device_hours": stage["device_hours"],
        }
        for stage in stages
        if stage["made"]
    ]
    by_basis = {}
    for basis in sorted({row["basis"] for row in rows}):
        own = [row for row in rows if row["basis"] == basis and row["ratio"]]
        if own:
            by_basis[basis] = {
                "stages": len(own),
                "ratio_of_seconds": sum(r["expected_s"] for r in own) / sum(r["measured_s"] for r in own),
                "ratio_of_device_hours": sum(r["expected_device_hours"] for r in own)
                / sum(r["measured_device_hours"] for r in own),
                "lowest": min(row["ratio"] for row in own),
                "highest": max(row["ratio"] for row in own),
            }
    return {"by_basis": by_basis, "stages": rows}


def _pipeline(asked: argparse.Namespace, sets: list[str], *more: str) -> dict[str, Any]:
    where = ["--out", str(asked.folder / "run"), "--store", str(asked.folder / "store"), "--mlflow", "none"]
    words = ["pipeline", asked.pipeline, *where, "--json", *more]
    words += [word for one in sets for word in ("--set", one)]
    done = subprocess.run([sys.executable, "-P", "-m", "seedbed", *words], stdout=subprocess.PIPE, check=True)
    value: dict[str, Any] = json.loads(done.stdout)
    return value


if __name__ == "__main__":
    sys.exit(main())
