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


def test_a_rank_keeps_the_state_of_what_it_owns():
    """Muon's momentum is never copied, under ddp either; the rest is AdamW's."""
    whole = moments(load_config("gpt2-124m", ["optimizer.name=muon"]))
    momentum = 2 * COUNT - whole
    found = {engine: parts("optimizer.name=muon", f"engine.name={engine}") for engine in ("ddp", "fsdp")}
    assert found["ddp"]["optimizer"] == 4 * (whole - momentum + momentum // 4)
    assert found["fsdp"]["optimizer"] == pytest.approx(whole, rel=1e-6)


def test_an_update_of_whole_tensors_has_them_together_after_the_backward():
    """It counts where activations are small: weights and gradients of what a rank owns, sent and received."""
    small = ("batch.micro_batch_size=1", "batch.tokens_per_step=32", "model.context=8")
    lamb = parts("optimizer.name=lamb", *small)
    # Four ranks: a rank's share, four times, beside what it holds of all else.
    assert lamb["communication"] == 4 * lamb["weights"]


@pytest.mark.parametrize("engine", ["ddp", "fsdp", "zero1", "zero2", "zero3"])
@pytest.mark.parametrize("policy", ["none", "full"])
def test_parts_make_up_the_total_and_none_is_forgotten(engine, policy):
    """A table whose rows do not add up would be believed in neither."""
    found = parts(f"engine.name={engine}", f"engine.checkpointing={policy}")
    assert found["total"] == sum(size for name, size in found.items() if name != "total")
    assert found["not_at_once"] <= 0
    always = found["weights"] + found["optimizer"]
    assert always + found["activations"] + found["logits"] <= found["total"]
    assert always + found["gradients"] <= found["total"]


def test_a_save_on_a_cpu_copies_what_it_writes():
    """A process that fits while it trains would be killed by its first save."""
    with_saves = memory_by_part(load_config("gpt2-124m", ["engine.device=cpu", "engine.num_ranks=4"]))
    without = memory_by_part(
        load_config("gpt2-124m", ["engine.device=cpu", "engine.num_ranks=4"]), saves=False
    )
    assert with_saves["checkpoint_copy"] == 3 * COUNT
    assert with_saves["total"] - without["total"] == 3 * COUNT
    assert parts()["checkpoint_copy"] == parts()["libraries"] == 0


def test_what_is_frozen_has_no_gradients_to_add_up_or_share():
    """Adapters under ddp would be refused a GPU that they fit."""
    adapters = ["engine.name=ddp", "model.lora_rank=8", "optimizer.trained=lora", "batch.micro_batch_size=1"]
    parts = memory_by_part(
        load_config(
            "gpt2-124m", ["engine.num_ranks=2", "engine.device=cuda", "engine.precision=bf16", *adapters]
        )
    )
    assert parts["gradients"] + parts["communication"] < parts["weights"] / 10


def test_roles_on_workers_of_their_own_are_not_in_a_ranks_memory():
    """But a single worker that holds a whole critic may be the largest of all."""
    policy = ("objective.name=ppo", 'rl.rewards=["accuracy"]')
    together, scored_apart, apart, alone = (
        parts(*policy, *more)
        for more in ((), ("rl.scoring_workers=1",), ("rl.critic_workers=4",), ("rl.critic_workers=1",))
    )
    assert together["beside_policy"] - scored_apart["beside_policy"] == 4 * COUNT
    assert apart["total"] < together["total"]
    # Weights and moments of all, on one worker: the four ranks have a quarter of their policy's each.
    assert alone["weights"] + alone["optimizer"] == 12 * COUNT
    assert "beside_policy" not in alone
