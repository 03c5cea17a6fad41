"""What `seedbed plan` predicts beside what ranks on this machine do, as JSON.

    python -P benchmarks/plan.py [--quick] [--only NAME] [--out FILE]

`memory`: the peak of each rank's process above what it had after its imports and with a process group, beside
the plan's total, for twenty configurations of at least 1 GiB. `speed`: tokens per second beside those planned
from what this machine's products, memory and sockets reach; on a machine that does other work too, those
figures mean nothing. Both run two ranks of one thread each, over gloo, on random tokens.
"""

import argparse
import os
import platform
import sys
from pathlib import Path

import torch

SECTIONS = ("memory", "speed")


def main() -> int:
    """Run the sections; 1 when one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two small configurations, in seconds")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="one section; repeatable")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    asked = parser.parse_args()
    # Last, since this folder holds a file with the name of a package.
    sys.path.append(str(Path(__file__).parent))
    from data_bench.machine import cpu_name, run_sections

    results = {
        "benchmark": "plan",
        "quick": asked.quick,
        "machine": {
            "cpu": cpu_name(),
            "cores": len(os.sched_getaffinity(0)),
            "load_at_start": os.getloadavg()[0],
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
    }
    return run_sections(results, "plan_bench", asked.only or SECTIONS, quick=asked.quick, out=asked.out)


if __name__ == "__main__":
    raise SystemExit(main())
