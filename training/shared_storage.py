"""Whether all ranks see one run directory."""

import time

from seedbed.errors import SeedbedError
from training.engines import Engine
from training.run_directory import RunDirectory


def agree_on_nonce(run: RunDirectory, engine: Engine) -> str:
    """A name for this attempt's temporary files, which every rank must be able to see."""
    path, rank, num_ranks = run.path / "nonce", engine.group.rank, engine.group.num_ranks
    own = float(time.time_ns() % 2**50) if rank == 0 else 0.0
    nonce = f"{int(engine.sum_over_ranks([own])[0]):x}"
    if rank == 0:
        path.write_text(nonce, encoding="utf-8")
    engine.barrier()
    sees = path.is_file() and path.read_text(encoding="utf-8") == nonce
    blind = engine.sum_over_ranks([float(not sees and r == rank) for r in range(num_ranks)])
    if any(blind):
        ranks = ", ".join(str(rank) for rank, value in enumerate(blind) if value)
        raise SeedbedError(
            f"rank(s) {ranks} do not see the run directory {run.path} that rank 0 writes",
            "put the run directory on storage that all hosts share",
        )
    return nonce
