"""Runs a comparison's other side in the environment of its own that the peers need."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

_REPOSITORY = Path(__file__).parent.parent.parent


class Peers(NamedTuple):
    """An environment that peers share."""

    variable: str
    """Names its Python."""
    folder: str
    """Where `make peers` puts it."""


DATA = Peers("SEEDBED_PEERS", ".venv-peers")
TRAIN = Peers("SEEDBED_TRAIN_PEERS", ".venv-train-peers")
RL = Peers("SEEDBED_RL_PEERS", ".venv-rl-peers")


def peer_python(peers: Peers = DATA) -> Path | None:
    """The Python that has them; None where there is none."""
    named = os.environ.get(peers.variable, "")
    python = Path(named) if named else _REPOSITORY / peers.folder / "bin" / "python"
    if named and not python.exists():
        raise SystemExit(
            f"${peers.variable} is {named}, which does not exist: name a Python with the peers in it"
        )
    return python if python.exists() else None


def run_peer(script: Path, *arguments: str, threads: int = 1, peers: Peers = DATA) -> dict[str, Any]:
    """The JSON document that `script` prints last on stdout, on the cores that this process may use.

    Raises RuntimeError, with the end of its stderr, for a script that fails.
    """
    python = peer_python(peers)
    if python is None:
        raise RuntimeError(f"no environment with the peers: `make peers`, or set ${peers.variable}")
    variables = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    counts = dict.fromkeys(variables, str(threads))
    environment = {**os.environ, **counts, "TOKENIZERS_PARALLELISM": "false"}
    command = [str(python), str(script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{script.name} failed: {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result
