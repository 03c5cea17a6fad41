"""Run records: which rows count, what goodput means, and appending when the disk is full."""

import contextlib
import json
import resource

import pytest

from seedbed.files import Journal, append_line, read_lines
from training.checkpoint.writer import SaveResult
from training.goodput import account, save_costs, time_by_cause, told_saves
from training.metrics import productive_seconds, surviving_rows, time_shares, working_seconds
from training.recipes import load_config
from training.recorder import Recorder
from training.run_directory import RunDirectory


def event(run, kind, moment, **details):
    append_line(run / "events.jsonl", {"time": moment, "kind": kind, "message": "", **details})


def step(run, attempt, number, moment, step_s=1.0):
    row = {"kind": "train", "attempt": attempt, "step": number, "time": moment, "step_s": step_s}
    append_line(run / "metrics.jsonl", row)


def test_rows_that_were_undone_do_not_count(tmp_path):
    """Loss curves would show steps that are not part of the weights."""
    for attempt, first, numbers in ((0, 0, range(1, 8)), (1, 4, range(5, 10)), (2, 2, range(3, 6))):
        event(tmp_path, "attempt_started", 0, attempt=attempt, from_step=first)
        for number in numbers:
            step(tmp_path, attempt, number, 0)
    chain = [(row["attempt"], row["step"]) for row in surviving_rows(tmp_path)]
    assert chain == [(0, 1), (0, 2), (2, 3), (2, 4), (2, 5)]
    assert productive_seconds(surviving_rows(tmp_path)) == 5


def test_steps_after_the_best_that_was_gone_back_to_do_not_count_until_trained_again(tmp_path):
    """The summary would tell of step 6 of a run whose weights are those of step 2."""
    event(tmp_path, "attempt_started", 0, attempt=1, from_step=0)
    for number in range(1, 7):
        step(tmp_path, 1, number, 0)
    event(tmp_path, "best_restored", 0, step=2)
    assert [row["step"] for row in surviving_rows(tmp_path)] == [1, 2]
    event(tmp_path, "attempt_started", 0, attempt=2, from_step=2)
    for number in range(3, 6):
        step(tmp_path, 2, number, 0)
    assert [(row["attempt"], row["step"]) for row in surviving_rows(tmp_path)] == [
        (1, 1), (1, 2), (2, 3), (2, 4), (2, 5),
    ]  # fmt: skip


def test_the_time_between_a_stop_and_a_resume_is_not_the_runs(tmp_path):
    """A run resumed after a weekend would report a goodput of nothing."""
    weekend = 172_800
    event(tmp_path, "session_started", 100)
    step(tmp_path, 0, 1, 160)
    event(tmp_path, "preempted", 200)
    event(tmp_path, "session_started", 200 + weekend)
    event(tmp_path, "resumed", 201 + weekend)
    step(tmp_path, 1, 2, 240 + weekend)
    assert working_seconds(tmp_path, 250 + weekend) == pytest.approx(100 + 50)
    assert working_seconds(tmp_path / "nothing", 1.0) == 0


def test_a_torn_line_hides_itself_and_nothing_else(tmp_path):
    """One crash while writing would make the whole record unreadable."""
    path = tmp_path / "metrics.jsonl"
    append_line(path, {"a": 1})
    with open(path, "a") as file:
        file.write('{"a": 2, "b')
    append_line(path, {"a": 3})
    assert list(read_lines(path)) == [{"a": 1}, {"a": 3}]


def test_rows_wait_for_the_disk_and_keep_their_order(tmp_path):
    """A moment without disk space would leave a hole in the record."""
    journal = Journal(tmp_path / "folder" / "events.jsonl")
    journal.append({"n": 1})
    journal.append({"n": 2})
    assert journal.num_waiting == 2
    (tmp_path / "folder").mkdir()
    journal.append({"n": 3})
    assert journal.num_waiting == 0
    assert [json.loads(line)["n"] for line in journal.path.read_text().splitlines()] == [1, 2, 3]


@contextlib.contextmanager
def files_end_at(num_bytes):
    """The disk is full at that byte of any file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_each_row_is_there_once_at_whatever_byte_the_disk_was_full(tmp_path):
    """A row of which only the line end was missing would be written, and counted, again."""
    rows = [{"n": n, "text": "some words"} for n in range(1, 5)]
    for full_at in range(1, 110):
        journal = Journal(tmp_path / f"{full_at}.jsonl")
        with files_end_at(full_at):
            for row in rows[:3]:
                journal.append(row)
        journal.append(rows[3])
        assert journal.num_waiting == 0
        assert list(read_lines(journal.path)) == rows, full_at


def test_the_best_checkpoint_is_kept_until_a_better_one_is_on_disk(tmp_path):
    """A failed save of a better model would delete the best one that there is."""
    from tests.unit.test_checkpoint import save
    from training.checkpoint import layout

    config = load_config("gpt-demo", ["checkpoint.keep=2"])
    recorder = Recorder(RunDirectory(tmp_path), config, rank=0, attempt=0)
    for number in (1, 2, 3, 4):
        save(tmp_path, number, num_ranks=1)
        recorder.saved(SaveResult(number, 0.0, best=(2.0, 1)))
    recorder.saved(SaveResult(5, 0.0, error="disk full", best=(1.0, 5)))
    assert recorder.best == (2.0, 1)
    save(tmp_path, 6, num_ranks=1)
    recorder.saved(SaveResult(6, 0.0, best=(2.0, 1)))
    assert layout.list_steps(tmp_path) == [1, 4, 6]


def test_status_is_a_mirror_that_cannot_stop_the_run(tmp_path):
    run = RunDirectory(tmp_path / "not there")
    run.write_status("running", 3)
    run.event("kind", "message")
    assert run.events.num_waiting == 1
    assert run.status()["state"] == "unknown"


def test_time_in_which_nothing_is_learnt_is_told_apart(tmp_path):
    """A user could not see whether to look at the disk, at the data or at the model."""
    assert time_shares([]) == {}
    rows = [
        {"step_s": 2.0, "data_s": 0.5},
        {"blocked_s": 1.0},
        {"step_s": 4.0, "data_s": None},
        {"eval_s": 3.0},
    ]
    assert time_shares(rows) == {"waiting_for_data": 0.05, "saving": 0.1, "validating": 0.3}


def test_lost_time_is_accounted_for_by_its_cause(tmp_path):
    """A user would not know whether to save more often, to mend the program or to leave the provider."""
    event(tmp_path, "session_started", 0)
    event(tmp_path, "attempt_started", 8, attempt=0, from_step=0)
    for number, moment in ((1, 12), (2, 14), (3, 16)):
        step(tmp_path, 0, number, moment, step_s=2.0)
    append_line(
        tmp_path / "metrics.jsonl",
        {"kind": "checkpoint", "attempt": 0, "step": 2, "time": 15, "blocked_s": 0.5},
    )
    event(tmp_path, "worker_died", 30, attempt=0, cause="infrastructure")
    event(tmp_path, "attempt_started", 34, attempt=1, from_step=2)
    step(tmp_path, 1, 3, 38, step_s=2.0)
    event(tmp_path, "rolled_back", 39, step=2)
    event(tmp_path, "attempt_started", 40, attempt=2, from_step=2)
    step(tmp_path, 2, 3, 45, step_s=2.0)
    event(tmp_path, "finished", 50)
    found = time_by_cause(tmp_path)
    # Step 3 was trained three times: what counts are steps 1, 2 and the last 3.
    assert found == {
        "wall": 50,
        "productive": 6,
        "starting": 10,
        # From the end of step 2 to where the next attempt began; then to where the one after it did.
        "infrastructure": 21,
        "rolled_back": 7,
        "saving": 0.5,
        "other": 5.5,
    }
    assert account({"wall": 100.0, "productive": 91.0, "starting": 0.2, "saving": 3.0, "other": 5.8}) == (
        "goodput 91%; lost: other 6%, saving 3%"
    )
    assert time_by_cause(tmp_path / "nothing") == {}


def test_saves_are_told_with_what_the_steps_beside_them_took_more(tmp_path):
    """Copying beside the loop would be called free, and every tenth step would be slower."""
    rows = [
        {
            "kind": "train",
            "step": number,
            "time": number,
            "step_s": 1.0 + (0.2 if beside else 0),
            "beside_save": beside,
        }
        for number, beside in enumerate([False, False, True, True, False, True, False], start=1)
    ]
    saves = [
        {"kind": "checkpoint", "step": 2, "time": 4, "blocked_s": 0.01, "written_s": 2.5},
        {"kind": "checkpoint", "step": 5, "time": 6, "blocked_s": 0.03, "written_s": 1.5},
    ]
    assert save_costs(rows) == {}
    costs = save_costs([*rows, *saves])
    assert costs == pytest.approx({"num_saves": 2, "blocked_s": 0.02, "written_s": 2.0, "slowed_s": 0.3})
    assert told_saves(costs) == (
        "2 save(s), medians: training blocked 20 ms, steps beside them slower by 300 ms, written in 2.00 s"
    )
    assert told_saves({}) == ""
