"""Exact mode on real processes: one set of weights on any number of ranks, under both engines, if resized."""

import itertools
import json
import shutil
from functools import partial

import pytest

from tests.integration.engine_runs import digest, job, run_jobs, told
from tests.integration.engine_runs import train as train_any
from tests.integration.engine_worker import stored

train = partial(train_any, exact=True)


def test_ranks_and_engines_do_not_change_a_bit(tmp_path):
    """The promise of the house: the same run gives the same weights on any number of machines."""
    reference = train(tmp_path / "one", "fsdp", 1, steps=4)
    for engine, num_ranks in (("ddp", 1), ("fsdp", 3), ("ddp", 2)):
        other = train(tmp_path / f"{engine}-{num_ranks}", engine, num_ranks, steps=4)
        assert digest(other) == digest(reference), (engine, num_ranks)
        assert told(other) == told(reference), (engine, num_ranks)
    resized = train(tmp_path / "half", "ddp", 3, steps=2)
    resized = train(tmp_path / "resized", "fsdp", 2, steps=2, first=2, load=resized)
    assert digest(resized) == digest(reference)


LONG = pytest.mark.long


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("muon", ("fsdp", 3), ("ddp", 2)),
        pytest.param("muon", ("ddp", 3), ("fsdp", 2), marks=LONG),
        pytest.param("adafactor", ("fsdp", 3), ("ddp", 2), marks=LONG),
        pytest.param("lamb", ("fsdp", 3), ("ddp", 2), marks=LONG),
    ],
)
def test_updates_of_whole_tensors_do_not_depend_on_their_owners(tmp_path, name, before, after):
    """Which rank orthogonalises a matrix; and its momentum, and averages of weights, move with resizes."""
    optimizer = {"name": name, "l2": 0.01, "clip_value": 0.01, "ema_decay": 0.9}
    run = partial(train, optimizer=optimizer)
    reference = run(tmp_path / "one", "fsdp", 1, steps=2)
    half = run(tmp_path / "half", *before, steps=1)
    resized = run(tmp_path / "resized", *after, steps=1, first=1, load=half)
    assert digest(resized) == digest(reference)


@pytest.mark.long
def test_float16_scales_its_loss_alike_everywhere(tmp_path):
    """The scale is a power of two, found by overflows that all ranks see."""
    one = train(tmp_path / "one", "fsdp", 1, steps=2, precision="fp16")
    assert digest(train(tmp_path / "two", "ddp", 2, steps=2, precision="fp16")) == digest(one)


def test_without_it_they_do(tmp_path):
    """Or the test above could not fail."""
    one = train(tmp_path / "one", "fsdp", 1, steps=4, exact=False)
    three = train(tmp_path / "three", "fsdp", 3, steps=4, exact=False)
    assert digest(one) != digest(three)
    assert told(three)["losses"] == pytest.approx(told(one)["losses"], abs=1e-5)


POLICIES = {
    "fp32": {"precision": "fp32"},
    "bf16": {"precision": "bf16"},
    "bf16-compiled": {"precision": "bf16", "compile": True},
}


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_fifty_steps_on_one_to_eight_ranks(tmp_path, monkeypatch):
    """With dropout and clipping, for each policy of precision; and runs resized 4 -> 3 -> 1 -> 2."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    for ranks in (1, 2, 3, 4, 8):
        cases = itertools.product(("ddp", "fsdp"), POLICIES.items())
        run_jobs(
            [
                job(tmp_path / p / f"{e}-{ranks}", e, steps=50, exact=True, **policy)
                for e, (p, policy) in cases
            ],
            ranks,
            timeout_s=900,
        )
    digests = {p: {digest(folder) for folder in (tmp_path / p).iterdir()} for p in POLICIES}
    assert [len(found) for found in digests.values()] == [1, 1, 1]
    assert len(set.union(*digests.values())) == 3
    kernels = {p: {told(folder)["kernels"] for folder in (tmp_path / p).iterdir()} for p in POLICIES}
    assert kernels == {"fp32": {"eager"}, "bf16": {"eager"}, "bf16-compiled": {"compiled"}}
    state, first = None, 0
    for number, (engine, ranks, steps) in enumerate(
        [("fsdp", 4, 10), ("ddp", 3, 15), ("ddp", 1, 10), ("fsdp", 2, 15)]
    ):
        parts = {p: tmp_path / f"resized-{number}" / p for p in POLICIES}
        jobs = [
            job(
                folder,
                engine,
                steps=steps,
                first=first,
                load=state and state / p,
                exact=True,
                **POLICIES[p],
            )
            for p, folder in parts.items()
        ]
        run_jobs(jobs, ranks, timeout_s=900)
        state, first = tmp_path / f"resized-{number}", first + steps
    assert state
    assert {p: {digest(state / p)} for p in POLICIES} == digests


@pytest.mark.long
def test_replicas_of_a_sharded_model_learn_the_same(tmp_path):
    """HSDP, two replicas over two ranks each: what one rank learns, every element stored by one rank."""
    one = train(tmp_path / "one", "fsdp", 1, steps=4, exact=False)
    four = train(tmp_path / "four", "fsdp", 4, steps=4, exact=False, replicas=2)
    assert told(four)["losses"] == pytest.approx(told(one)["losses"], abs=1e-5)
    assert told(four)["norms"] == pytest.approx(told(one)["norms"], rel=1e-4)
    sizes = [{name: values.numel() for name, values in stored(folder).items()} for folder in (one, four)]
    assert sizes[0] == sizes[1]


@pytest.mark.long
def test_lanes_are_another_run_with_the_same_promise(tmp_path):
    """Fewer reductions; the ranks still do not show.

    Two lanes of four: the additions within a lane are a chain, so this is another run. (Four lanes of two
    would not be: a chain of two is a pair of the tree.)
    """
    lanes = {
        ranks: digest(train(tmp_path / f"lanes-{ranks}", "fsdp", ranks, steps=4, exact_lanes=2))
        for ranks in (1, 2)
    }
    assert len(set(lanes.values())) == 1
    assert lanes[1] != digest(train(tmp_path / "all", "fsdp", 1, steps=4))


@pytest.mark.long
def test_a_run_is_resumed_on_other_ranks_with_another_engine_to_the_same_bits(tmp_path, seedbed_cli):
    """What a user of a shrinking cluster sees; and nothing is said of another curve."""
    settings = {
        "model.num_layers": 1, "model.width": 36, "model.num_heads": 3, "model.context": 32,
        "model.dropout": 0.1,
        "batch.micro_batch_size": 2, "batch.tokens_per_step": 256, "engine.exact": "true",
        "run.steps": 6, "checkpoint.every_steps": 3, "eval.every_steps": 0, "tracking.mlflow": "false",
    }  # fmt: skip
    sets = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    seedbed_cli("train", "gpt-demo", "--run-dir", "whole", *sets, "--set", "engine.num_ranks=1")
    seedbed_cli("train", "gpt-demo", "--run-dir", "cut", *sets, "--set", "engine.num_ranks=3")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "step-6")
    seedbed_cli("train", "--resume", "cut", "--set", "engine.num_ranks=2", "--set", "engine.name=ddp")
    hashes = [
        json.loads(seedbed_cli("checkpoint", "hash", run, "--optimizer", "--json").stdout)["hash"]
        for run in ("whole", "cut")
    ]
    assert hashes[0] == hashes[1]
    assert "world_changed" not in (tmp_path / "cut" / "events.jsonl").read_text()


@pytest.mark.long
def test_a_user_can_have_it_proved_on_a_recipe(seedbed_cli):
    """One hash on every layout, and the cost."""
    sizes = ("model.num_layers=1", "model.width=36", "model.num_heads=3", "model.context=32")
    batch = ("batch.micro_batch_size=2", "batch.tokens_per_step=256")
    sets = [part for setting in (*sizes, *batch) for part in ("--set", setting)]
    result = json.loads(
        seedbed_cli("train", "gpt-demo", "--verify-exact", "--json", *sets, timeout_s=240).stdout
    )
    exact = [(row["engine"], row["num_ranks"]) for row in result["layouts"] if row["exact"]]
    assert exact == [("fsdp", 1), ("ddp", 2), ("fsdp", 2)]
    assert {row["hash"] for row in result["layouts"] if row["exact"]} == {result["hash"]}
    assert result["layouts"][-1]["hash"] != result["hash"]
    assert result["cost"] > -1
