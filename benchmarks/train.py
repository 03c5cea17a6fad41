"""Training on a CPU: beside its peers, on two ranks, in exact mode, and what the loop itself takes; as JSON.

    python -P benchmarks/train.py [--quick] [--only NAME] [--out FILE]

The peers (transformers, accelerate, litgpt) need an environment of their own: `make peers` creates
.venv-train-peers, and $SEEDBED_TRAIN_PEERS may name the Python of another. Without it, the comparison with
them is left out, and says so. What is compared runs in turn, in processes of its own, and a ratio is one of
neighbours in time. Threads wait for each other: on a machine that does other work too, figures mean nothing.
"""

import argparse
import os
import platform
import sys
from pathlib import Path

import torch

SECTIONS = ("throughput", "ranks", "exact", "loop", "memory")


def main() -> int:
    """Run the sections; 1 when one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="a model and a number of steps that take seconds"
    )
    parser.add_argument("--only", choices=SECTIONS, action="append", help="one section; repeatable")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    asked = parser.parse_args()
    # Last, since this folder holds a file with the name of a package.
    sys.path.append(str(Path(__file__).parent))
    from data_bench.machine import cpu_name, run_sections

    results = {
        "benchmark": "train",
        "quick": asked.quick,
        "machine": {
            "cpu": cpu_name(),
            "cores": len(os.sched_getaffinity(0)),
            "load_at_start": os.getloadavg()[0],
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
    }
    return run_sections(results, "train_bench", asked.only or SECTIONS, quick=asked.quick, out=asked.out)


if __name__ == "__main__":
    raise SystemExit(main())
