"""The command, in a folder, with its failure said."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SEEDBED = Path(sys.executable).with_name("seedbed")


def seedbed(folder: Path, *arguments: str) -> Any:
    """What it prints with `--json`, else None; raises RuntimeError with the end of what was said."""
    done = subprocess.run([str(SEEDBED), *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"seedbed {' '.join(arguments)}\n{done.stderr[-3000:]}")
    return json.loads(done.stdout) if "--json" in arguments else None
