"""Out of memory, for real: the run ends with what took it, and with settings that take less."""

import os
import shlex
from pathlib import Path

import pytest

from tests.conftest import SEEDBED, run_command
from training.out_of_memory import REMEDIES, explained
from training.plan import memory_by_part
from training.recipes import make_config

LIMIT_KIB = 6_000_000
# Logits of 12 GiB.
SETTINGS = {
    "model.num_layers": 1, "model.width": 16, "model.num_heads": 2, "model.context": 256,
    "batch.micro_batch_size": 2048, "batch.tokens_per_step": 2048 * 256, "run.steps": 2,
    "eval.every_steps": 0, "tracking.mlflow": "false", "engine.num_ranks": 1,
}  # fmt: skip


def test_a_rank_without_memory_says_what_took_it(tmp_path):
    """A user would see a traceback three times over, and guess."""
    sets = [part for name, value in SETTINGS.items() for part in ("--set", f"{name}={value}")]
    command = shlex.join([str(SEEDBED), "train", "gpt-demo", "--run-dir", "run", *sets])
    run = run_command(
        ["bash", "-c", f"ulimit -v {LIMIT_KIB}; {command}"],
        timeout_s=120,
        cwd=tmp_path,
        env={"OMP_NUM_THREADS": "1"},
    )
    assert run.code == 4, run.stderr
    assert "rank 0 ran out of memory; by the plan the largest part are its logits: 12." in run.stderr
    assert "objective.num_chunks, a smaller batch.micro_batch_size" in run.stderr
    assert "restarting" not in run.stderr


@pytest.fixture
def small_cgroup():
    """A control group with 700 MB of memory; whoever is in it gets no more, and no swap."""
    group = next(
        (
            root / "seedbed-test"
            for root in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup"))
            if (root / "cgroup.procs").exists() and os.access(root, os.W_OK)
        ),
        None,
    )
    try:
        assert group is not None
        group.mkdir()
    except (AssertionError, OSError):
        pytest.skip("memory is limited by a control group, which needs root and a writable /sys/fs/cgroup")
    limit = group / "memory.max" if (group / "memory.max").exists() else group / "memory.limit_in_bytes"
    limit.write_text("700000000")
    yield group
    group.rmdir()


@pytest.mark.root
def test_a_rank_that_the_kernel_kills_is_told_from_one_that_a_person_killed(tmp_path, small_cgroup):
    """`killed by SIGKILL` would be all that a user hears, restart after restart."""
    sets = [part for name, value in SETTINGS.items() for part in ("--set", f"{name}={value}")]
    sets += ["--set", "restarts.infrastructure=0"]
    command = shlex.join([str(SEEDBED), "train", "gpt-demo", "--run-dir", "run", *sets])
    inside = f"echo $$ > {small_cgroup / 'cgroup.procs'}; {command}"
    run = run_command(["bash", "-c", inside], timeout_s=120, cwd=tmp_path, env={"OMP_NUM_THREADS": "1"})
    assert run.code == 4, run.stderr
    assert "ran out of memory; by the plan the largest part are its logits" in run.stderr
    assert "was killed by SIGKILL, by the kernel" in run.stderr
    assert "a larger objective.num_chunks" in run.stderr


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        (
            {"model": {"context": 1024}, "batch": {"tokens_per_step": 16384, "micro_batch_size": 16}},
            "activations",
        ),
        (
            {"model": {"width": 4096, "num_heads": 32, "context": 16}, "batch": {"tokens_per_step": 128}},
            "optimizer",
        ),
    ],
)
def test_the_part_that_is_named_is_the_largest_of_the_plan(settings, part):
    config = make_config({"model": {"vocab_size": 300, **settings["model"]}, "batch": settings["batch"]})
    error = explained(MemoryError(), config, 3)
    assert f"rank 3 ran out of memory; by the plan the largest part are its {part}" in error.message
    assert all(remedy in error.fix for remedy in REMEDIES[part])


def test_every_part_of_a_plan_has_its_remedies():
    """What grew most would be named, and nothing against it."""
    parts = memory_by_part(make_config({"model": {"vocab_size": 300}}))
    assert REMEDIES.keys() == parts.keys() - {"total", "block_backward", "not_at_once", "libraries"}
