"""The same command under torchrun and srun, whose environment it reads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.external_launch import ExternalLauncher, rank_here
from seedbed.errors import UsageError
from tests.cluster_runs import assignments, state_hash, trained_twice
from tests.conftest import SEEDBED, run_command

SLURM = {"SLURM_JOB_ID": "71", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1"}


@pytest.mark.long
@pytest.mark.timeout(180)
def test_torchrun_and_srun_train_the_very_same_run(tmp_path, seedbed_cli):
    """Whoever has a cluster without Ray could not use it, or would get another model."""
    options = assignments(run__steps=8)
    whole = seedbed_cli("train", "gpt-demo", "--run-dir", "whole", *options)
    assert whole.code == 0, whole.stderr
    expected = state_hash(tmp_path / "whole")

    torchrun = Path(sys.executable).with_name("torchrun")
    command = [str(torchrun), "--standalone", "--nproc-per-node=2", "--no-python", str(SEEDBED)]
    outcome = run_command(
        [*command, "train", "gpt-demo", "--run-dir", "torchrun", *options], timeout_s=120, cwd=tmp_path
    )
    assert outcome.code == 0, outcome.stderr
    assert "finished: step 8" in outcome.stdout

    ranks = [
        subprocess.Popen(
            [str(SEEDBED), "train", "gpt-demo", *options],
            env={**os.environ, **SLURM, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    told = [process.communicate(timeout=120)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], told
    for run in (tmp_path / "torchrun", tmp_path / "runs" / "gpt-demo-71"):
        assert state_hash(run) == expected
        assert trained_twice(run) == []
    assert list((tmp_path / "runs").glob(".*")) == []


@pytest.mark.timeout(120)
def test_a_mistake_on_rank_0_ends_all_ranks(tmp_path):
    """The others would wait for ten minutes of everybody's time."""
    ranks = [
        subprocess.Popen(
            [str(SEEDBED), "train", "gpt-demo", "--set", "model.widht=3"],
            env={**os.environ, **SLURM, "SLURM_PROCID": str(rank)},
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    told = [process.communicate(timeout=60)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [2, 1], told
    assert "rank 0 could not begin" in told[1]


def test_a_batch_script_is_no_rank():
    """A supervisor that is started from a script of Slurm's would wait for ranks that nobody starts."""
    assert rank_here({**SLURM, "SLURM_STEP_ID": "4294967291", "SLURM_PROCID": "0"}) is None
    assert rank_here({**SLURM, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}) is None
    found = rank_here({**SLURM, "SLURM_PROCID": "1", "SLURM_LOCALID": "1"})
    assert (found.rank, found.num_ranks, found.local_rank, found.launch) == (1, 2, 1, "71.0.0")


def test_workers_that_nobody_started_are_not_waited_for(tmp_path):
    """All that torchrun and srun start train: a run that wants more would never begin."""
    place = rank_here({**SLURM, "SLURM_PROCID": "0"})
    with pytest.raises(UsageError, match=r"has 3 workers, those beside its ranks too"):
        ExternalLauncher(place, tmp_path / "run").make_room(3, lambda: False)
    assert ExternalLauncher(place, tmp_path / "run").make_room(2, lambda: False) == 2
