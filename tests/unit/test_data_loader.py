"""Prefetching changes the waiting, and nothing else."""

import threading
import time

import numpy as np
import pytest
from token_splits import Simulated

from data.batches import WindowStream
from data.loader import Prefetcher
from seedbed.errors import DataError

STEP = 8


def prefetch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def prefetcher(load, **options) -> Prefetcher:
    return Prefetcher(load, lambda position: position + STEP, **options)


@pytest.mark.parametrize(("depth", "num_threads"), [(1, 1), (2, 1), (5, 3), (3, 8)])
def test_batches_do_not_depend_on_threads_or_depth(depth, num_threads):
    """Otherwise the number of loader threads would be part of a run's identity."""
    stream = WindowStream(Simulated(5000), 16, 0)

    def load(position):
        time.sleep(0.001 * (position % 3))
        return stream.batch(position, STEP)

    positions = [*range(0, 20 * STEP, STEP), 8000, 8008, 16, 24, 24, 3]
    with prefetcher(load, depth=depth, num_threads=num_threads) as batches:
        for position in positions:
            assert np.array_equal(batches.get(position).tokens, stream.batch(position, STEP).tokens)
    assert prefetch_threads() == []


def test_the_next_batches_are_ready_when_asked_for():
    """Otherwise the accelerator would wait for every batch."""
    began = []

    def load(position):
        began.append(position)
        return position

    with prefetcher(load, depth=3) as batches:
        batches.get(0)
        deadline = time.monotonic() + 10
        while len(began) < 4 and time.monotonic() < deadline:
            time.sleep(0.001)
        assert began == [0, 8, 16, 24]
        batches.get(8)
        batches.get(16)
    assert began[:4] == [0, 8, 16, 24]
    assert len(set(began)) == len(began)


def test_what_was_read_ahead_is_not_waited_for():
    """Otherwise every step would wait for its data."""

    def load(position):
        time.sleep(0.1)
        return position

    with prefetcher(load, depth=2) as batches:
        started = time.perf_counter()
        batches.get(0)
        assert time.perf_counter() - started >= 0.09
        time.sleep(0.5)
        started = time.perf_counter()
        batches.get(8)
        assert time.perf_counter() - started < 0.09


def test_an_error_is_raised_where_it_belongs():
    """Otherwise a damaged shard would end the run too early, or under another name."""

    def load(position):
        if position == 16:
            raise DataError("slice 3 is damaged", "rebuild")
        return position

    with prefetcher(load, depth=4) as batches:
        assert [batches.get(0), batches.get(8)] == [0, 8]
        time.sleep(0.05)
        with pytest.raises(DataError, match="slice 3 is damaged"):
            batches.get(16)
        assert batches.get(24) == 24
        with pytest.raises(DataError, match="slice 3"):
            batches.get(16)
    assert prefetch_threads() == []


def test_threads_end_when_the_consumer_fails():
    """Otherwise a failed run would hang instead of ending."""

    def train():
        with prefetcher(lambda position: position) as batches:
            batches.get(0)
            raise RuntimeError("training failed")

    with pytest.raises(RuntimeError, match="training failed"):
        train()
    assert prefetch_threads() == []


def test_impossible_settings_are_refused():
    """Otherwise nothing would ever be loaded."""
    for options in ({"depth": 0}, {"num_threads": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            prefetcher(lambda position: position, **options)
