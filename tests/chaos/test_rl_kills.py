"""A policy that learns from rewards is killed at every phase of an iteration: its weights are those of a run
that nothing happened to, on another number of ranks."""

import pytest
from faulty_runs import finish, start, state_hash

from tests.integration.test_rl_training import Prepared
from training.metrics import read_events, surviving_rows

PHASES = (
    ("training.rl.workers:Policy.refresh", "after"),
    ("training.rl.workers:Policy.generate", "after"),
    ("training.rl.judging:Judge.rewards", "after"),
    ("training.rl.workers:Policy.log_probs", "before"),
    ("training.rl.workers:Reference.log_probs", "after"),
    ("training.rl.critic:Critic.values", "after"),
    ("training.rl.driver:Reinforcement._learn_from", "after"),
    ("training.rl.driver:Reinforcement._keep", "before"),
    ("training.engines.torch_engine:TorchEngine.step", "before"),
    ("training.rl.critic:Critic.learn", "before"),
    ("training.rl.critic:Critic.learn", "after"),
)
"""The engine's step is the policy's, and, every second time, the critic's."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return Prepared(tmp_path_factory.mktemp("rl"))


@pytest.fixture(scope="module")
def undisturbed(prepared, tmp_path_factory):
    """One rank, from beginning to end."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    finish(start(run, [], recipe=(recipe(prepared), prepared.policy), engine__num_ranks=1))
    return state_hash(run)


def recipe(prepared):
    settings = prepared.reward() + "\n" + prepared.everything("ppo") + "\nkeep_rollouts = 99"
    path = prepared.recipe("ppo", 12, settings, 'exact = true\nname = "ddp"')
    path.write_text(path.read_text().replace("every_steps = 3", "every_steps = 1"))
    return path


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_a_kill_at_any_phase_of_an_iteration_changes_nothing(prepared, tmp_path, undisturbed):
    """By either rank, in turn."""
    run = tmp_path / "run"
    faults = [
        {"kind": "call", "rank": place % 2, "call": call, "number": 1 + (place == 8), "when": when}
        for place, (call, when) in enumerate(PHASES)
    ]
    plenty = {"restarts__infrastructure": 99, "restarts__without_progress": 99, "restarts__program": 99}
    finish(
        start(run, faults, recipe=(recipe(prepared), prepared.policy), engine__num_ranks=2, **plenty),
        timeout_s=600,
    )
    # Two ranks may die of two faults at once.
    assert len(list((run / "logs").glob("fired-*"))) == len(PHASES)
    assert len([event for event in read_events(run) if event["kind"] == "restarted"]) > len(PHASES) / 2
    assert state_hash(run) == undisturbed
    steps = [row["step"] for row in surviving_rows(run) if row["kind"] == "train"]
    assert steps == list(range(1, 13))


@pytest.mark.parametrize(
    ("call", "number"),
    [
        pytest.param("training.rl.judging:Judge.rewards", 2, marks=pytest.mark.long),
        ("training.rl.critic:Critic.learn", 3),
    ],
)
def test_a_run_that_was_killed_goes_on_with_another_number_of_ranks(
    prepared, tmp_path, undisturbed, call, number
):
    """In the middle of an iteration too: what was answered is part of the step."""
    run = tmp_path / "run"
    faults = [{"kind": "call", "rank": 1, "call": call, "number": number, "when": "before"}]
    never = {"restarts__infrastructure": 0, "restarts__program": 0, "restarts__without_progress": 0}
    begun = start(run, faults, recipe=(recipe(prepared), prepared.policy), engine__num_ranks=2, **never)
    finish(begun, code=4)
    finish(start(run, [], resume=True, engine__num_ranks=1))
    assert state_hash(run) == undisturbed


@pytest.mark.chaos
@pytest.mark.parametrize(
    ("call", "number", "apart"),
    [
        pytest.param(
            "training.rl.sources:Function.rewards", 2, {"rl__scoring_workers": 1}, marks=pytest.mark.long
        ),
        ("training.rl.critic:Critic.learn", 8, {"rl__critic_workers": 1}),
        pytest.param("training.rl.critic:Critic.save", 3, {"rl__critic_workers": 1}, marks=pytest.mark.long),
    ],
)
def test_a_worker_beside_the_ranks_that_is_killed_is_replaced(
    prepared, tmp_path, undisturbed, call, number, apart
):
    """With the ranks that it worked for, from the last step that all of them saved."""
    run = tmp_path / "run"
    faults = [{"kind": "call", "rank": 1, "call": call, "number": number, "when": "before"}]
    finish(start(run, faults, recipe=(recipe(prepared), prepared.policy), engine__num_ranks=1, **apart))
    died = [event for event in read_events(run) if event["kind"] == "worker_died"]
    assert [event["rank"] for event in died] == [1]
    assert state_hash(run) == undisturbed


@pytest.mark.long
@pytest.mark.chaos
def test_a_save_that_fails_anywhere_is_given_up_by_all(prepared, tmp_path, undisturbed):
    """By rank 0 when it puts the parts together, by another rank, by the critic's worker: all go on."""
    run = tmp_path / "run"
    places = [(0, 3, "write_json", 2), (1, 6, "write_tensors", 1), (2, 9, "write_tensors", 1)]
    faults = [
        {"kind": "save", "rank": rank, "step": step, "call": call, "number": number, "when": "full"}
        for rank, step, call, number in places
    ]
    apart = {"engine__num_ranks": 2, "rl__critic_workers": 1, "timeouts__collective_s": 60}
    finish(start(run, faults, recipe=(recipe(prepared), prepared.policy), **apart))
    events = read_events(run)
    failed = [event for event in events if event["kind"] == "checkpoint_failed"]
    assert [event["step"] for event in failed] == [3, 6, 9]
    for event, (rank, *_) in zip(failed, places, strict=True):
        assert "No space left on device" in event["message"]
        assert f"rank-{rank}" in event["message"] or rank == 0
    assert not [event for event in events if event["kind"] in ("worker_died", "restarted")]
    assert state_hash(run) == undisturbed
