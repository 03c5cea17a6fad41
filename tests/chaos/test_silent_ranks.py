"""Ranks that go silent are named with what they were doing, and the run restarts; slow ones are let be."""

import re
import statistics

import pytest
from faulty_runs import finish, start, state_hash

from training.metrics import read_events, surviving_rows

QUICK = {"timeouts__heartbeat_s": 4, "run__steps": 20}


def events(run, kind):
    return [event for event in read_events(run) if event["kind"] == kind]


def test_a_stopped_rank_is_named_with_its_stack_and_the_run_goes_on(tmp_path):
    """A hang costs ten minutes of a whole cluster elsewhere."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    # Steps may be quicker than the writing of step 5, which is to be there.
    pause = {"kind": "sleep", "rank": 0, "step": 7, "seconds": 1, "attempt": 0}
    stop = {"kind": "stop", "rank": 1, "step": 8, "attempt": 0}
    output = finish(start(run, [pause, stop], **QUICK))
    (hang,) = events(run, "hang")
    assert hang["rank"] == 1
    # Beats are at most one a second, and steps are shorter.
    assert re.search(r"rank 1 has been silent for \d+ s, since training after step [4-7];", hang["message"])
    assert "; its process was stopped by a signal; it was in File" in hang["message"]
    assert "faulty_step" in hang["stacks"]["1"]
    assert "rank(s) 0 wait for it" in hang["message"]
    # It is woken up to tell its stack, and may come to the next save before it is ended.
    assert re.search(
        r"! restarting all ranks from step (5|10) \(restart 1; infrastructure: 1 of 10\)", output
    )
    finish(start(whole, [], **QUICK))
    assert state_hash(run) == state_hash(whole)


@pytest.mark.long
def test_ranks_whose_steps_are_long_are_not_taken_for_hanging(tmp_path):
    """A healthy run would be restarted again and again."""
    # Longer than the time-out, and so is the one before.
    faults = [{"kind": "sleep", "rank": 0, "step": step, "seconds": 6} for step in range(1, 5)]
    finish(start(tmp_path / "run", faults, **QUICK | {"run__steps": 4}))
    assert not events(tmp_path / "run", "hang")


@pytest.mark.long
def test_a_rank_that_keeps_the_others_waiting_is_named_and_let_be(tmp_path):
    """Its steps are as long as everybody's: nothing else would tell who is slow."""
    run = tmp_path / "run"
    slow = [{"kind": "sleep", "rank": 1, "step": step, "seconds": 0.2} for step in range(1, 21)]
    output = finish(start(run, slow, guards__pace_every=4, run__steps=20))
    (told,) = events(run, "slow_rank")
    assert told["rank"] == 1
    assert re.search(r"! rank 1 comes to its micro-batches 0\.(19|2)\d* s after the others", output)
    assert not events(run, "restarted")


@pytest.mark.long
def test_an_error_of_the_program_has_a_budget_of_its_own(tmp_path):
    """What every restart repeats would be repeated as often as machines may fail."""
    faults = [
        {"kind": "exception", "rank": 1, "step": 8},
        {"kind": "kill", "rank": 0, "step": 6, "attempt": 0},
    ]
    changes = {"restarts__program": 1, "restarts__without_progress": 9, "run__steps": 20}
    output = finish(start(tmp_path / "run", faults, **changes), code=4)
    told = events(tmp_path / "run", "worker_died")
    assert [event["cause"] for event in told] == ["infrastructure", "program", "program"]
    assert "given up after 2 restart(s) (program: 1 of 1)" in output
    assert "an injected error" in output


@pytest.mark.long
def test_a_state_that_is_loaded_wrongly_is_refused_and_nothing_is_put_aside(tmp_path):
    """A mistake in resharding would go on as if nothing had happened."""
    run = tmp_path / "run"
    finish(start(run, [], run__steps=5))
    output = finish(start(run, [{"kind": "misload", "rank": 1}], resume=True, run__steps=8), code=3)
    assert "was loaded as another tensor than the one that was saved" in output
    assert (run / "checkpoints" / "step-5").is_dir()
    finish(start(run, [], resume=True, run__steps=8, engine__num_ranks=1))


@pytest.mark.long
def test_a_rank_that_somebody_else_preempts_is_started_again(tmp_path):
    """A drained host would end the run on all the others."""
    run = tmp_path / "run"
    finish(start(run, [{"kind": "terminate", "rank": 1, "step": 8, "attempt": 0}], run__steps=20))
    (died,) = events(run, "worker_died")
    assert died["cause"] == "preemptions"
    assert "was asked to stop by somebody else, and saved" in died["message"]
    assert events(run, "attempt_started")[1]["from_step"] == 8


@pytest.mark.long
def test_a_rank_that_computes_wrongly_is_named_and_a_sound_one_is_not(tmp_path):
    """Six of Llama 3's interruptions were silent corruption: whoever does not look learns from it."""
    run = tmp_path / "run"
    faults = [{"kind": "corruption", "rank": 1, "step": 9, "attempt": 0}]
    output = finish(start(run, faults, guards__recompute_every=3, run__steps=20))
    (found,) = events(run, "silent_corruption")
    assert (found["step"], found["wrong_ranks"]) == (9, [1])
    assert "rank(s) 1 computed a loss twice and got two" in output
    whole = tmp_path / "whole"
    finish(start(whole, [], run__steps=20))
    assert state_hash(run) == state_hash(whole)


@pytest.mark.long
def test_a_job_s_time_ends_in_a_checkpoint(tmp_path):
    run = tmp_path / "run"
    changes = {"timeouts__job_s": 20, "timeouts__collective_s": 19, "timeouts__heartbeat_s": 18}
    slow = [{"kind": "sleep", "rank": 0, "step": step, "seconds": 1.0} for step in range(1, 200)]
    output = finish(start(run, slow, run__steps=200, **changes), code=5)
    assert "20 s are over (timeouts.job_s)" in output
    assert "is saved" in output


@pytest.mark.chaos
def test_as_it_is_set_a_stopped_rank_is_noticed_within_35_seconds(tmp_path):
    """Named and restarting."""
    run = tmp_path / "run"
    finish(start(run, [{"kind": "stop", "rank": 1, "step": 8, "attempt": 0}]))
    (hang,), (restarted,) = events(run, "hang"), events(run, "restarted")
    assert hang["silent_s"] + restarted["time"] - hang["time"] < 35


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_a_killed_rank_costs_at_most_30_seconds(tmp_path):
    """From SIGKILL to the next optimizer step, warm: the median of ten."""
    lost = []
    for number in range(10):
        run = tmp_path / str(number)
        finish(start(run, [{"kind": "kill", "rank": number % 2, "step": 8, "attempt": 0}], run__steps=12))
        rows = [row for row in surviving_rows(run) if row["kind"] == "train"]
        last, first = ([row["time"] for row in rows if row["attempt"] == attempt] for attempt in (0, 1))
        lost.append(first[0] - last[-1])
    print(f"seconds from a kill to the next step: median {statistics.median(lost):.1f}, {sorted(lost)}")
    assert statistics.median(lost) <= 30
