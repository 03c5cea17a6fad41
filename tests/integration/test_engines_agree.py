"""All engines on real processes: the same gradients, the same curve, and one checkpoint for all."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integration.engine_runs import BATCH, MODEL, digest, job, run_jobs, told, train
from tests.integration.engine_worker import stored

ENGINES = ("ddp", "fsdp", "zero1", "zero2", "zero3")
USUAL_RATE = 1e-3


def close(one: Path, other: Path, tolerance: float) -> None:
    assert told(one)["losses"] == pytest.approx(told(other)["losses"], abs=tolerance)


def assert_same_state(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, values in one.items():
        assert torch.equal(values, other[name]), name


@pytest.mark.long
def test_a_run_moves_between_zero_and_fsdp(tmp_path):
    """Parts that begin and end within rows are put together again, bit for bit; averages of weights too."""
    settings = {"lr": USUAL_RATE, "optimizer": {"ema_decay": 0.5}}
    whole = train(tmp_path / "whole", "fsdp", 1, steps=4, **settings)
    first = train(tmp_path / "first", "zero3", 2, steps=2, **settings)
    second = train(tmp_path / "second", "fsdp", 1, steps=2, first=2, load=first, **settings)
    assert_same_state(stored(second, "loaded"), stored(first))
    for name, values in stored(second).items():
        torch.testing.assert_close(values, stored(whole)[name], atol=1e-5, rtol=0, msg=name)
    assert [*told(first)["losses"], *told(second)["losses"]] == pytest.approx(told(whole)["losses"], abs=1e-6)
    assert told(first)["norms"] == pytest.approx(told(whole)["norms"][:2], rel=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("num_ranks", [1, 3])
def test_gradients_are_those_of_one_big_batch(num_ranks, tmp_path):
    """Uneven lengths, padding, and any split into micro-batches: a mean of means would be another."""

    def plain(micro_batch_size: int) -> dict[str, Any]:
        return {
            "model": {**MODEL, "dropout": 0.0, "drop_path": 0.0},
            "batch": {**BATCH, "micro_batch_size": micro_batch_size},
            # With this, a step of rate 1 subtracts the gradient.
            "optimizer": {"name": "sgd", "weight_decay": 0.0, "clip_norm": 0.0},
        }

    big = job(tmp_path / "big", "ddp", steps=1, lr=1.0, tables=plain(16))
    run_jobs([big], 1)
    cases: list[tuple[str, int, dict[str, str]]] = [
        *((engine, size, {}) for engine in ENGINES for size in (1, 2, 4)),
        ("zero2", 4, {"offload": "optimizer"}),
        ("zero3", 4, {"offload": "parameters", "checkpointing": "full"}),
    ]
    jobs = [
        job(tmp_path / str(number), engine, steps=1, lr=1.0, tables=plain(size), **options)
        for number, (engine, size, options) in enumerate(cases)
    ]
    run_jobs(jobs, num_ranks)
    expected = stored(tmp_path / "big")
    for number, case in enumerate(cases):
        for name, values in stored(tmp_path / str(number)).items():
            if name.startswith("model/"):
                torch.testing.assert_close(values, expected[name], atol=1e-6, rtol=0, msg=f"{case} {name}")


@pytest.mark.long
def test_a_hundred_steps_of_all_engines(tmp_path):
    jobs = [job(tmp_path / engine, engine, steps=100, lr=USUAL_RATE) for engine in ENGINES]
    run_jobs(jobs, 2)
    for engine in ENGINES[1:]:
        close(tmp_path / engine, tmp_path / ENGINES[0], 1e-5)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_any_engine_goes_on_from_any(tmp_path):
    """5 x 5, two ranks to one, one to two, two to four: ten more steps have the losses of an unbroken run."""
    settings = {"lr": USUAL_RATE, "tables": {"batch": {**BATCH, "tokens_per_step": 4 * 2 * 16}}}
    for num_ranks in (1, 2):
        jobs = [
            job(tmp_path / f"{num_ranks}-{engine}{name}", engine, steps=steps, **settings)
            for name, steps in (("", 10), ("-whole", 20))
            for engine in ENGINES
        ]
        run_jobs(jobs, num_ranks)
    for before, after in ((2, 1), (1, 2), (2, 4)):
        pairs = list(itertools.product(ENGINES, ENGINES))
        folders = [tmp_path / f"{before}-{after}" / f"{old}-{new}" for old, new in pairs]
        jobs = [
            job(folder, new, steps=10, first=10, load=tmp_path / f"{before}-{old}", **settings)
            for folder, (old, new) in zip(folders, pairs, strict=True)
        ]
        run_jobs(jobs, after)
        for folder, (old, _) in zip(folders, pairs, strict=True):
            assert_same_state(stored(folder, "loaded"), stored(tmp_path / f"{before}-{old}"))
            whole = told(tmp_path / f"{before}-{old}-whole")["losses"]
            assert told(folder)["losses"] == pytest.approx(whole[10:], abs=1e-6), folder.name


@pytest.mark.parametrize("engine", ["fsdp", pytest.param("zero2", marks=pytest.mark.long), "zero3"])
def test_a_step_that_is_not_learnt_from_leaves_no_trace(tmp_path, engine):
    """A spike that is skipped would move the moments all the same."""
    skipped = {1: "skipped", 2: "too large"}
    optimizer = {"ema_decay": 0.9}
    run_jobs(
        [
            job(tmp_path / "skipped", engine, steps=4, passes=skipped, optimizer=optimizer),
            job(
                tmp_path / "omitted",
                engine,
                steps=4,
                passes=dict.fromkeys(skipped, "omitted"),
                optimizer=optimizer,
            ),
        ],
        2,
    )
    assert digest(tmp_path / "skipped") == digest(tmp_path / "omitted")
    assert told(tmp_path / "skipped")["norms"][2] > 1e-6
