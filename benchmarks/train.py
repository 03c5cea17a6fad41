"""Training on a CPU: beside its peers, on two ranks, in exact mode, and what the loop itself takes; as JSON.

    python -P benchmarks/train.py [--quick] [--only NAME] [--out FILE]

The peers (transformers, accelerate, litgpt, trl) need an environment of their own: `make peers` creates
.venv-train-peers, and $SEEDBED_TRAIN_PEERS may name the Python of another. Without it, the comparison with
them is left out, and says so. What is compared runs in turn, in processes of its own, and a ratio is one of
neighbours in time. Threads wait for each other: on a machine that does other work too, figures mean nothing.
"""

import sys
from pathlib import Path

SECTIONS = ("throughput", "defaults", "sft", "ranks", "exact", "loop", "memory")

if __name__ == "__main__":
    # Last, since this folder holds files with the names of packages.
    sys.path.append(str(Path(__file__).parent))
    from data_bench.machine import run_sections

    raise SystemExit(run_sections(__doc__ or "", "train_bench", SECTIONS))
