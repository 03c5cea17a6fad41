"""The data path beside its peers: each comparison in one run, interleaved, one core, as JSON.

    python -P benchmarks/data.py [--quick] [--only NAME] [--out FILE]

The peers (datatrove, datasets) need an environment of their own: `make peers` creates .venv-peers, and
$SEEDBED_PEERS may name the Python of another. Without it, comparisons with them are left out, and say so.
"""

import argparse
import os
import platform
import sys
from pathlib import Path

COMPARISONS = ("shards", "filters", "minhash", "wordpiece", "scale", "loader")


def main() -> int:
    """Run the comparisons; 1 when one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repeats on less text")
    parser.add_argument("--only", choices=COMPARISONS, action="append", help="one comparison; repeatable")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    asked = parser.parse_args()
    # One core for us and for the peers, which are children of this process.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    # Last, since this file has the name of a package.
    sys.path.append(str(Path(__file__).parent))
    from data_bench.machine import cpu_name, run_sections

    results = {"machine": {"cpu": cpu_name(), "python": platform.python_version(), "cores_used": 1}}
    return run_sections(results, "data_bench", asked.only or COMPARISONS, quick=asked.quick, out=asked.out)


if __name__ == "__main__":
    raise SystemExit(main())
