"""Planned memory: what an engine cuts over its ranks, and what an optimizer keeps."""

import pytest

from models.families import count_parameters
from training.memory_plan import memory_by_part, moments
from training.recipes import load_config

COUNT = count_parameters(load_config("gpt2-124m").model).total


def parts(*assignments: str) -> dict[str, int]:
    return memory_by_part(load_config("gpt2-124m", ["engine.num_ranks=4", *assignments]))


@pytest.mark.parametrize(
    ("engine", "weights", "optimizer"),
    [("ddp", 4, 8), ("fsdp", 1, 2), ("zero1", 4, 3), ("zero2", 4, 3), ("zero3", 1, 3)],
)
def test_an_engine_holds_its_share(engine, weights, optimizer):
    """A plan for the wrong engine would send a run to a GPU that it does not fit."""
    found = parts(f"engine.name={engine}")
    assert found["weights"] == weights * COUNT
    assert found["optimizer"] == optimizer * COUNT


def test_gradients_of_ddp_and_zero1_are_whole():
    whole = {engine: parts(f"engine.name={engine}")["gradients"] for engine in ("ddp", "zero1", "zero2")}
    assert whole["ddp"] == whole["zero1"] == 4 * COUNT > whole["zero2"]


def test_replicas_are_not_cut():
    assert parts("engine.replicas=2")["weights"] == 2 * COUNT


def test_what_is_offloaded_is_not_on_the_device():
    found = parts("engine.name=zero3", "engine.offload=parameters")
    assert (found["weights"], found["optimizer"]) == (0, 0)


def test_exact_mode_holds_partial_sums():
    assert parts()["exact_sums"] == 0
    assert parts("engine.exact=true")["exact_sums"] >= COUNT


@pytest.mark.parametrize(
    ("name", "per_parameter"),
    [("adamw", 2), ("amsgrad", 3), ("sgd", 0), ("lion", 1), ("adagrad", 1)],
)
def test_an_optimizer_keeps_its_moments(name, per_parameter):
    assert moments(load_config("gpt2-124m", [f"optimizer.name={name}"])) == per_parameter * COUNT


def test_factored_and_hidden_moments_are_fewer():
    kept = {
        name: moments(load_config("gpt2-124m", [f"optimizer.name={name}"])) for name in ("adafactor", "muon")
    }
    assert kept["adafactor"] < COUNT / 50
    assert COUNT < kept["muon"] < 2 * COUNT
