"""What `seedbed plan` predicts beside what ranks on this machine do, as JSON.

    python -P benchmarks/plan.py [--quick] [--only NAME] [--out FILE]

`memory`: the peak of each rank's process above what it had after its imports and with a process group, beside
the plan's total, for twenty configurations of at least 1 GiB. `speed`: tokens per second beside those planned
from what this machine's products, memory and sockets reach; on a machine that does other work too, those
figures mean nothing. Both run two ranks of one thread each, over gloo, on random tokens.
"""

import sys
from pathlib import Path

SECTIONS = ("memory", "speed")

if __name__ == "__main__":
    # Last, since this folder holds files with the names of packages.
    sys.path.append(str(Path(__file__).parent))
    from data_bench.machine import run_sections

    raise SystemExit(run_sections(__doc__ or "", "plan_bench", SECTIONS))
