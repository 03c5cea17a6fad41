"""Runs a comparison's other side in the environment of its own that the peers need."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

_REPOSITORY = Path(__file__).parent.parent.parent


def peer_python() -> Path | None:
    """The Python that has the peers: $SEEDBED_PEERS, or .venv-peers/bin/python; None where there is none."""
    named = os.environ.get("SEEDBED_PEERS", "")
    python = Path(named) if named else _REPOSITORY / ".venv-peers" / "bin" / "python"
    if named and not python.exists():
        raise SystemExit(
            f"$SEEDBED_PEERS is {named}, which does not exist: name a Python with benchmarks/peers.txt in it"
        )
    return python if python.exists() else None


def run_peer(script: Path, *arguments: str, threads: int = 1) -> dict[str, Any]:
    """The JSON document that `script` prints last on stdout, on the cores that this process may use.

    Raises RuntimeError, with the end of its stderr, for a script that fails.
    """
    python = peer_python()
    if python is None:
        raise RuntimeError("no environment with the peers: `make peers`, or set $SEEDBED_PEERS")
    variables = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    counts = dict.fromkeys(variables, str(threads))
    environment = {**os.environ, **counts, "TOKENIZERS_PARALLELISM": "false"}
    command = [str(python), str(script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{script.name} failed: {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result
