"""What failures cost: saves, a tracker that is down, ranks that die or stop, and a soak; as JSON.

    python -P benchmarks/reliability.py [--quick] [--only NAME] [--out FILE]

`soak` takes 20 minutes, `recovery` some 8. Figures are of moments: nothing else should run on the machine.
"""

import argparse
import os
import platform
import sys
from pathlib import Path

import torch

SECTIONS = ("saves", "tracker", "recovery", "soak")


def main() -> int:
    """Run the sections; 1 when one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="sizes and numbers that take seconds")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="one section; repeatable")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    asked = parser.parse_args()
    # Last, since this folder holds files with the names of packages.
    sys.path.append(str(Path(__file__).parent))
    from data_bench.machine import cpu_name, run_sections

    results = {
        "benchmark": "reliability",
        "quick": asked.quick,
        "machine": {
            "cpu": cpu_name(),
            "cores": len(os.sched_getaffinity(0)),
            "load_at_start": os.getloadavg()[0],
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
    }
    return run_sections(
        results, "reliability_bench", asked.only or SECTIONS, quick=asked.quick, out=asked.out
    )


if __name__ == "__main__":
    raise SystemExit(main())
