"""What Ray costs a run: until its first step, and in every step after it; as JSON.

    python -P benchmarks/cluster.py [--quick] [--only NAME] [--out FILE]

Both train gpt-demo on two ranks of one thread each, by `seedbed train` and by `seedbed submit` to a cluster
that is started for them on this machine. Figures are of moments: nothing else should run beside them.
"""

import sys
from pathlib import Path

SECTIONS = ("first_step", "steady")

if __name__ == "__main__":
    # Last, since this folder holds files with the names of packages.
    sys.path.append(str(Path(__file__).parent))
    from data_bench.machine import run_sections

    raise SystemExit(run_sections(__doc__ or "", "cluster_bench", SECTIONS))
