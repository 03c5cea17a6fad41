"""A training worker: `python -P -m training.worker`, started by the supervisor, one per rank."""

import argparse
import contextlib
import os
import sys
import time
import traceback
from pathlib import Path

import torch

from seedbed.errors import EXIT_OTHER, Preempted, SeedbedError
from training.devices import threads_per_rank
from training.fence import newest_attempt
from training.loop import fit
from training.out_of_memory import explained, is_out_of_memory
from training.processes import (
    StopFlag,
    answer_for_stacks,
    process_group,
    set_arithmetic,
    stop_when_parent_dies,
)
from training.recorder import beat
from training.rl.roles import serve
from training.run_directory import RunDirectory
from training.trainer import Trainer


def main() -> int:
    """Run one rank; the exit code says how it ended."""
    options = _parser().parse_args()
    stop = StopFlag()
    answer_for_stacks()
    stop_when_parent_dies()
    run = RunDirectory(Path(options.run_dir))
    set_arithmetic()
    rendezvous = Path(options.rendezvous)
    try:
        config = run.config()
        torch.set_num_threads(threads_per_rank(config.engine))
        engine, timeout_s = config.engine, config.timeouts.collective_s
        if options.rank >= engine.num_ranks:
            serve(run, options.rank, options.attempt, rendezvous)
            return 0
        with process_group(options.rank, engine.num_ranks, engine.device, rendezvous, timeout_s) as group:
            fit(Trainer(run, group, options.attempt, stop))
    except Preempted as stopped:
        say(str(stopped))
        return stopped.exit_code
    except SeedbedError as error:
        return _failed(run, options.rank, options.attempt, error, error.exit_code)
    except Exception as error:
        say(traceback.format_exc())
        if is_out_of_memory(error):
            short = explained(error, run.config(), options.rank)
            return _failed(run, options.rank, options.attempt, short, short.exit_code)
        return _failed(run, options.rank, options.attempt, error, EXIT_OTHER)
    return 0


def _failed(run: RunDirectory, rank: int, attempt: int, error: Exception, code: int) -> int:
    say(f"rank {rank}: {error}")
    if newest_attempt(run.path) > attempt:
        # Its last words would pass for those of a worker that is at work.
        return code
    step = int(run.status().get("step", 0))
    beat(run, rank, step, "failed", attempt=attempt, error=str(error), code=code, failed_at=time.time())
    return code


def say(text: str) -> None:
    """Write to the log, unless its disk is full: the exit code must not depend on that."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.worker", description=__doc__)
    parser.add_argument("--run-dir", required=True)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--attempt", type=int, required=True)
    parser.add_argument("--rendezvous", required=True)
    return parser


if __name__ == "__main__":
    exit_code = main()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    # Threads of a broken process group must not keep a worker alive that has nothing left to do.
    os._exit(exit_code)
