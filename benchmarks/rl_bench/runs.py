"""The command, in a folder, with its failure said."""

import subprocess
import sys
from pathlib import Path

SEEDBED = Path(sys.executable).with_name("seedbed")


def seedbed(folder: Path, *arguments: str) -> None:
    """Raises RuntimeError with the end of what was said."""
    done = subprocess.run([str(SEEDBED), *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"seedbed {' '.join(arguments)}\n{done.stderr[-3000:]}")
