"""A run's only rank, in the process of the test."""

from pathlib import Path

import torch

from training.loop import fit
from training.processes import process_group
from training.run_directory import RunDirectory
from training.trainer import Trainer


class NeverStopped:
    """A `StopFlag` of a process that gets no signals."""

    is_set = False


def train(run: RunDirectory, rendezvous: Path) -> None:
    """To the end of the run, or to its error, after which other tests have a group of their own."""
    try:
        with process_group(0, 1, "cpu", rendezvous, 60) as group:
            fit(Trainer(run, group, 0, NeverStopped()))  # type: ignore[arg-type]
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
