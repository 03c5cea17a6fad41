"""A run is copied elsewhere while it trains, and goes on from there when its disk is lost."""

import json
import shutil

import pytest
from s3_server import BUCKET, s3_server

from training.metrics import read_events

SMALL = {
    "model.num_layers": 1, "model.width": 32, "model.num_heads": 2, "model.context": 16,
    "batch.micro_batch_size": 2, "batch.tokens_per_step": 64, "run.steps": 12, "eval.every_steps": 0,
    # A rate that does not depend on how many steps there are.
    "schedule.name": "constant", "schedule.warmup_share": 0.0,
    "checkpoint.every_steps": 4, "tracking.mlflow": "false", "engine.num_ranks": 2, "engine.exact": "true",
}  # fmt: skip


def sets(**changes):
    settings = {**SMALL, **{name.replace("__", "."): value for name, value in changes.items()}}
    return [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]


@pytest.fixture
def storage():
    with s3_server() as fs:
        yield fs


def hash_of(seedbed_cli, run):
    return json.loads(seedbed_cli("checkpoint", "hash", run, "--optimizer", "--json").stdout)["hash"]


def kinds(run):
    return [event["kind"] for event in read_events(run)]


@pytest.mark.long
def test_a_run_goes_on_from_its_copy_when_its_disk_is_lost(tmp_path, seedbed_cli, storage):
    """A terabyte of checkpoints is worth nothing on the disk that died."""
    url = f"s3://{BUCKET}/run"
    copied = sets(checkpoint__copy_to=url, run__steps=8)
    begun = seedbed_cli("train", "gpt-demo", "--run-dir", "run", *copied)
    assert begun.code == 0, begun.stderr
    # Of steps that wait, the newest alone is copied: after this one, another.
    assert seedbed_cli("train", "--resume", "run", "--set", "run.steps=10").code == 0
    assert "copied" in kinds(tmp_path / "run")
    names = {path.rpartition("/")[2] for path in storage.ls(f"{BUCKET}/run/checkpoints", detail=False)}
    assert names == {"step-8", "step-10"}
    shutil.rmtree(tmp_path / "run")
    # The newest step there is damaged: the one before it is taken.
    path = f"{BUCKET}/run/checkpoints/step-10/rank-1.safetensors"
    content = bytearray(storage.cat_file(path))
    content[-3] ^= 4
    storage.pipe_file(path, bytes(content))
    fetched = seedbed_cli("checkpoint", "fetch", url, "again", "--json")
    assert json.loads(fetched.stdout)["step"] == 8, fetched.stderr
    refused = seedbed_cli("checkpoint", "fetch", url, "again")
    assert (refused.code, "is not empty" in refused.stderr) == (2, True)
    resumed = seedbed_cli("train", "--resume", "again", "--set", "run.steps=12")
    assert resumed.code == 0, resumed.stderr
    whole = seedbed_cli("train", "gpt-demo", "--run-dir", "whole", *sets())
    assert whole.code == 0, whole.stderr
    assert hash_of(seedbed_cli, "again") == hash_of(seedbed_cli, "whole")


@pytest.mark.long
def test_storage_that_fails_later_costs_the_copy_and_not_the_run(tmp_path, seedbed_cli):
    """A tracker kills healthy runs elsewhere; a second disk must not."""
    target = tmp_path / "elsewhere"
    target.mkdir()
    copy = {"checkpoint__copy_to": str(target)}
    first = seedbed_cli("train", "gpt-demo", "--run-dir", "run", *sets(**copy, run__steps=4))
    assert first.code == 0, first.stderr
    shutil.rmtree(target)
    target.write_text("a file where a folder was")
    second = seedbed_cli("train", "--resume", "run", "--set", "run.steps=8")
    assert second.code == 0, second.stderr
    assert "was not copied to" in second.stderr
    assert kinds(tmp_path / "run").count("copy_failed") >= 1
    fetched = seedbed_cli("checkpoint", "fetch", target, "again")
    assert fetched.code in (2, 3)


def test_storage_that_cannot_be_written_is_said_before_the_run(seedbed_cli):
    refused = seedbed_cli(
        "train", "gpt-demo", "--run-dir", "run", *sets(checkpoint__copy_to="s3://no-such-bucket-here/run")
    )
    assert refused.code in (2, 3)
    assert "no-such-bucket-here" in refused.stderr


def test_prune_keeps_what_a_run_needs(tmp_path, seedbed_cli):
    changes = {"checkpoint__every_steps": 2, "checkpoint__keep": 6, "engine__num_ranks": 1}
    assert seedbed_cli("train", "gpt-demo", "--run-dir", "run", *sets(**changes)).code == 0
    planned = json.loads(seedbed_cli("checkpoint", "prune", "run", "--dry-run", "--json").stdout)
    assert planned["deleted"] == ["step-2", "step-4", "step-6", "step-8"]
    assert planned["bytes"] > 0
    assert seedbed_cli("checkpoint", "prune", "run").code == 0
    listed = json.loads(seedbed_cli("checkpoint", "list", "run", "--json").stdout)["checkpoints"]
    assert [row["step"] for row in listed] == [10, 12]
    assert seedbed_cli("checkpoint", "prune", "run", "--keep", "1").code == 2
