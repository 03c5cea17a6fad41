"""What failures cost: saves, a tracker that is down, ranks that die or stop, and a soak; as JSON.

    python -P benchmarks/reliability.py [--quick] [--only NAME] [--out FILE]

`soak` takes 20 minutes, `recovery` some 8. Figures are of moments: nothing else should run on the machine.
"""

import sys
from pathlib import Path

SECTIONS = ("saves", "tracker", "recovery", "soak")

if __name__ == "__main__":
    # Last, since this folder holds files with the names of packages.
    sys.path.append(str(Path(__file__).parent))
    from data_bench.machine import run_sections

    raise SystemExit(run_sections(__doc__ or "", "reliability_bench", SECTIONS))
