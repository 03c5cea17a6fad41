"""Guards on real ranks: they decide alike, and a run that was disturbed goes on by itself."""

import json
import math

import pytest
from faulty_runs import finish, start, state_hash

from training.metrics import read_events, surviving_rows
from training.run_directory import RunDirectory

ACT = {"guards__spikes": "act", "guards__window": 8, "guards__max_skips": 1}


def events(run, kind):
    return [event for event in read_events(run) if event["kind"] == kind]


def train_rows(run):
    return [row for row in surviving_rows(run) if row["kind"] == "train"]


def spikes(*steps, attempt=0):
    return [
        {"kind": "loss", "rank": "all", "step": step, "factor": 30.0, "attempt": attempt} for step in steps
    ]


def test_a_number_that_is_none_on_one_rank_is_skipped_by_all(tmp_path):
    """A rank that decides by itself would part from the others without a word."""
    run = tmp_path / "run"
    faults = [{"kind": "loss", "rank": 1, "step": step, "factor": math.nan} for step in (7, 8)]
    output = finish(start(run, faults))
    told = events(run, "step_skipped")
    assert [event["step"] for event in told] == [7, 8]
    assert "! step 7 was skipped: the loss is nan; the largest loss, nan, is that of samples" in output
    rows = train_rows(run)
    assert [row["step"] for row in rows if row.get("skipped")] == [7, 8]
    assert rows[-1]["step"] == 30
    assert rows[6]["loss"] is None
    assert all(math.isfinite(row["loss"]) for row in rows[8:])
    # Skipped is skipped, on however many ranks.
    alone = tmp_path / "alone"
    everywhere = [{**fault, "rank": "all"} for fault in faults]
    finish(start(alone, everywhere, engine__num_ranks=1))
    assert state_hash(run) == state_hash(alone)


@pytest.mark.long
def test_numbers_that_are_none_end_a_run_past_their_budget(tmp_path):
    """It would go on for days without learning anything."""
    faults = [{"kind": "loss", "rank": 0, "step": step, "factor": math.inf} for step in range(3, 9)]
    output = finish(start(tmp_path / "run", faults, guards__max_nonfinite=3), code=4)
    assert "step 6: the loss is inf; so in 4 of the last 128 steps, and nothing was updated by them" in output
    assert "look at the samples from position" in output


@pytest.mark.long
def test_spikes_are_skipped_then_slowed_then_rolled_back(tmp_path):
    """And a run that is killed after that, and resumed, passes over the same data."""
    run = tmp_path / "run"
    output = finish(start(run, spikes(16, 17, 18, 19), **ACT))
    assert [event["step"] for event in events(run, "step_skipped")] == [16, 17, 18, 19]
    assert "! step 17 was skipped" in output
    assert "the learning rate is lowered for a while" in output
    (back,) = events(run, "rolled_back")
    # Eight samples a step: those of steps 16 to 19.
    start_, end = back["passed_over"]
    assert (back["step"], start_, end) == (15, 15 * 8, 19 * 8)
    assert RunDirectory(run).passed_over() == [(start_, end)]
    assert not events(run, "restarted")
    rows = train_rows(run)
    assert [row["step"] for row in rows] == list(range(1, 31))
    assert rows[15]["position"] == end + 8
    assert not any(row.get("skipped") for row in rows)
    killed = tmp_path / "killed"
    kill = {"kind": "kill", "rank": 1, "step": 23, "attempt": 1}
    finish(start(killed, [*spikes(16, 17, 18, 19), kill], **ACT))
    assert len(events(killed, "restarted")) == 1
    assert state_hash(killed) == state_hash(run)


@pytest.mark.long
def test_a_run_does_not_go_back_for_ever(tmp_path):
    faults = [fault for attempt in (0, 1) for fault in spikes(16, 17, 18, 19, attempt=attempt)]
    output = finish(start(tmp_path / "run", faults, guards__max_rollbacks=1, **ACT), code=4)
    assert "and the run went back 1 time(s) already" in output


@pytest.mark.long
def test_what_is_passed_over_is_not_forgotten_by_damage(tmp_path):
    """The run would learn from the data that it went back for."""
    run = tmp_path / "run"
    finish(start(run, spikes(16, 17, 18, 19), **ACT))
    path = run / "passed-over.json"
    record = json.loads(path.read_text())
    record["positions"][0][1] += 4
    path.write_text(json.dumps(record))
    output = finish(start(run, [], resume=True, run__steps=32), code=3)
    assert "passed-over.json is damaged" in output
