"""A training worker: `python -P -m training.worker`, started by the supervisor, one per rank."""

import argparse
import os
import sys
import time
import traceback
from pathlib import Path

import torch

from seedbed.errors import EXIT_OTHER, Preempted, SeedbedError
from training.devices import threads_per_rank
from training.loop import fit
from training.processes import StopFlag, process_group, stop_when_parent_dies
from training.recorder import Recorder
from training.run_directory import RunDirectory
from training.trainer import Trainer

COLLECTIVE_TIMEOUT_S = 600.0


def main() -> int:
    """Run one rank; the exit code says how it ended."""
    options = _parser().parse_args()
    stop = StopFlag()
    stop_when_parent_dies(options.parent_pid)
    run = RunDirectory(Path(options.run_dir))
    config = run.config()
    torch.set_num_threads(threads_per_rank(config.engine))
    # Denormal numbers in a fresh model's moments make CPU arithmetic several times slower.
    torch.set_flush_denormal(True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    rendezvous = Path(options.rendezvous)
    try:
        with process_group(
            options.rank, config.engine.num_ranks, config.engine.device, rendezvous, COLLECTIVE_TIMEOUT_S
        ) as group:
            fit(Trainer(run, group, options.attempt, stop))
    except Preempted as stopped:
        print(stopped, flush=True)
        return stopped.exit_code
    except SeedbedError as error:
        return _failed(run, options.rank, options.attempt, error, error.exit_code)
    except Exception as error:
        traceback.print_exc()
        return _failed(run, options.rank, options.attempt, error, EXIT_OTHER)
    return 0


def _failed(run: RunDirectory, rank: int, attempt: int, error: Exception, code: int) -> int:
    print(f"rank {rank}: {error}", file=sys.stderr, flush=True)
    step = int(run.status().get("step", 0))
    recorder = Recorder(run, run.config(), rank, attempt)
    recorder.beat(step, "failed", error=str(error), code=code, failed_at=time.time())
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.worker", description=__doc__)
    parser.add_argument("--run-dir", required=True)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--attempt", type=int, required=True)
    parser.add_argument("--rendezvous", required=True)
    parser.add_argument("--parent-pid", type=int, required=True)
    return parser


if __name__ == "__main__":
    exit_code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of a broken process group must not keep a worker alive that has nothing left to do.
    os._exit(exit_code)
