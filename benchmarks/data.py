"""The data path beside its peers: each comparison in one run, interleaved, one core, as JSON.

    python -P benchmarks/data.py [--quick] [--only NAME] [--out FILE]

The peers (datatrove, datasets) need an environment of their own: `make peers` creates .venv-peers, and
$SEEDBED_PEERS may name the Python of another. Without it, comparisons with them are left out, and say so.
"""

import os
import sys
from pathlib import Path

COMPARISONS = ("shards", "filters", "minhash", "wordpiece", "scale", "loader")

if __name__ == "__main__":
    # One core for us and for the peers, which are children of this process.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    # Last, since this file has the name of a package.
    sys.path.append(str(Path(__file__).parent))
    from data_bench.machine import run_sections

    raise SystemExit(run_sections(__doc__ or "", "data_bench", COMPARISONS))
