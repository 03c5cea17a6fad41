"""Likelihoods beside lm-evaluation-harness, same weights, same requests, in turn; and how far they agree.

    python -P benchmarks/evals.py [--quick] [--only NAME] [--out FILE]

The harness needs an environment of its own: `make peers` makes it as .venv-evals-peers, and
$SEEDBED_EVALS_PEERS may name the Python of another. Its model is `hf` on the exported weights, in fp32, with
the batch size of 1, 4 and 16 that is fastest here. Texts are of Python's standard library.

    choices   four choices for a long context
    rolling   whole texts, windows one context apart
"""

import sys
from pathlib import Path

SECTIONS = ("choices", "rolling")

if __name__ == "__main__":
    # Last, since this folder holds files with the names of packages.
    sys.path.append(str(Path(__file__).parent))
    from data_bench.machine import run_sections

    raise SystemExit(run_sections(__doc__ or "", "evals_bench", SECTIONS))
