"""Which rank is silent, for how long it may be, and when nobody can be heard."""

import dataclasses

import pytest

from seedbed.files import write_json
from training import hangs
from training.hangs import HangWatch
from training.resilience import TimeoutsConfig
from training.run_directory import RunDirectory


@dataclasses.dataclass
class FakeWorker:
    stopped: bool = False
    ended: int | None = None

    def poll(self):
        return self.ended

    def is_stopped(self):
        return self.stopped

    def stack(self):
        return 'Thread 0x01 (most recent call first):\n  File "loop.py", line 7 in wait\n'


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    now = [1000.0]
    monkeypatch.setattr(hangs.time, "monotonic", lambda: now[0])
    return now


class Watched:
    """Two ranks whose beats and silence a test plays."""

    def __init__(self, path, clock):
        self.run, self.clock = RunDirectory(path), clock
        (path / "heartbeats").mkdir()
        self.watch = HangWatch(self.run, TimeoutsConfig(), 2)
        self.workers = [FakeWorker(), FakeWorker()]

    def beat(self, rank, step, phase="training", **details):
        write_json(self.run.heartbeat_path(rank), {"step": step, "phase": phase, **details})

    def pass_time(self, seconds):
        """Second by second; the first hang that is found."""
        for _ in range(seconds):
            self.clock[0] += 1
            if found := self.watch.look(self.workers):
                return found
        return None


@pytest.fixture
def watched(tmp_path, clock):
    return Watched(tmp_path, clock)


def test_the_rank_that_came_least_far_is_named(watched):
    watched.beat(0, 8)
    watched.beat(1, 7)
    assert watched.pass_time(29) is None
    found = watched.pass_time(5)
    assert (found.rank, found.silent_s) == (1, 31)
    assert found.message == (
        "rank 1 has been silent for 31 s, since training after step 7; it was in "
        'File "loop.py", line 7 in wait; so have been 0'
    )


def test_a_rank_that_was_stopped_is_named_wherever_it_was(watched):
    watched.beat(0, 7)
    watched.beat(1, 8)
    watched.workers[1].stopped = True
    found = watched.pass_time(40)
    assert found.rank == 1
    assert "its process was stopped by a signal" in found.message
    assert "rank(s) 0 wait for it" in found.message


def test_long_steps_are_let_be_five_times_over(watched):
    """A run with steps of a minute would be restarted for ever."""
    for rank in (0, 1):
        watched.beat(rank, 1, step_s=60.0)
    assert watched.pass_time(299) is None
    assert watched.pass_time(10).rank == 0


@pytest.mark.parametrize("phase", ["starting", "saving", "evaluating", "copying"])
def test_what_may_take_long_has_the_time_of_a_collective(watched, phase):
    for rank in (0, 1):
        watched.beat(rank, 1, phase)
    assert watched.pass_time(595) is None
    assert watched.pass_time(10)


@pytest.mark.parametrize("phase", ["starting", "saving", "validating"])
def test_a_stopped_rank_is_found_in_every_phase(watched, phase):
    """One that is stopped in its first step would be waited for as long as a save may take."""
    watched.beat(0, 7, phase)
    watched.beat(1, 7, phase)
    watched.workers[1].stopped = True
    assert watched.pass_time(29) is None
    found = watched.pass_time(5)
    assert (found.rank, list(found.stacks)) == (1, [0, 1])
    assert f"since {phase} after step 7; its process was stopped by a signal" in found.message


def test_who_waits_for_a_stopped_rank_is_told_though_it_has_beaten_later(watched):
    """It depended on which of the two beats was written first whether anybody was said to wait."""
    watched.beat(0, 7)
    watched.beat(1, 7)
    watched.workers[1].stopped = True
    assert watched.pass_time(3) is None
    watched.beat(0, 8)
    found = watched.pass_time(30)
    assert (found.rank, list(found.stacks)) == (1, [0, 1])
    assert found.message.endswith("; rank(s) 0 wait for it")


def test_a_rank_that_never_was_heard_is_found_too(watched):
    assert watched.pass_time(595) is None
    assert watched.pass_time(10)


def test_the_dead_do_not_hang(watched):
    """Of those the supervisor hears otherwise."""
    for rank in (0, 1):
        watched.beat(rank, 1)
        watched.workers[rank].ended = 1
    assert watched.pass_time(700) is None


def test_a_supervisor_that_was_stopped_itself_begins_anew(watched):
    """It would take its own sleep for theirs."""
    for rank in (0, 1):
        watched.beat(rank, 1)
    assert watched.pass_time(2) is None
    watched.clock[0] += 3600
    assert watched.pass_time(29) is None


def test_where_nothing_can_be_written_nobody_is_called_silent(watched, monkeypatch):
    """A full disk would look like a hang of all ranks."""

    def full(*_, **__):
        raise OSError("no space left")

    for rank in (0, 1):
        watched.beat(rank, 1)
    monkeypatch.setattr(hangs, "write_json", full)
    assert watched.pass_time(200) is None
