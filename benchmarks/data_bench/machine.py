"""What a benchmark ran on, and how one of several sections is run."""

import argparse
import importlib
import json
import os
import platform
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.devices import cpu_flags


def cpu_name() -> str:
    """The processor's name, as Linux has it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def machine() -> dict[str, Any]:
    """What figures of this moment and process depend on."""
    import torch

    return {
        "cpu": cpu_name(),
        "wide": sorted({"avx2", "avx512f", "avx512_bf16", "amx_bf16"} & cpu_flags()),
        "cores": len(os.sched_getaffinity(0)),
        "load_at_start": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def run_sections(description: str, package: str, sections: Sequence[str]) -> int:
    """What `package.NAME.run(quick)` finds for each of `sections`, or for those asked for, as JSON.

    Each beside the machine it ran on. The file of --out keeps the sections that were not asked for.
    Returns 1 when one of them failed.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="sizes and numbers of repeats that take seconds")
    parser.add_argument("--only", choices=sections, action="append", help="one section; repeatable")
    parser.add_argument("--out", type=Path, help="write the JSON here too, beside the file's other sections")
    asked = parser.parse_args()
    results: dict[str, Any] = {}
    for name in asked.only or sections:
        print(f"== {name}", file=sys.stderr)
        where = {"machine": machine(), "quick": asked.quick}
        try:
            results[name] = {**where, **importlib.import_module(f"{package}.{name}").run(asked.quick)}
        except Exception:
            results[name] = {**where, "error": traceback.format_exc()}
    print(json.dumps(results, indent=2))
    if asked.out:
        before = json.loads(asked.out.read_text()) if asked.out.exists() else {}
        asked.out.write_text(json.dumps({**before, **results}, indent=2) + "\n")
    return int(any("error" in found for found in results.values()))
