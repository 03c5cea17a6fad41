"""What a benchmark ran on, and how one of several sections is run."""

import importlib
import json
import platform
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def cpu_name() -> str:
    """The processor's name, as Linux has it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def run_sections(
    results: dict[str, Any], package: str, names: Iterable[str], *, quick: bool, out: Path | None
) -> int:
    """Add `package.NAME.run(quick)` of each to `results`, print them as JSON; 1 when one failed."""
    failed = False
    for name in names:
        print(f"== {name}", file=sys.stderr)
        try:
            results[name] = importlib.import_module(f"{package}.{name}").run(quick)
        except Exception:
            failed = True
            results[name] = {"error": traceback.format_exc()}
    text = json.dumps(results, indent=2)
    print(text)
    if out:
        out.write_text(text + "\n")
    return int(failed)
