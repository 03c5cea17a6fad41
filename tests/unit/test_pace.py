"""Slow ranks: named when they keep the others waiting, and only then."""

from types import SimpleNamespace

import pytest
import torch

from training.engines import Group
from training.pace import NUM_WINDOWS, Pace


def paces(num_ranks=3, every=4):
    """(rank 0's pace, what it tells, a function that sets what the ranks measure)."""
    told, figures = [], {}

    def sum_over_ranks(values):
        # Rank 0's own figures are replaced too: a test is about what is made of them.
        return [*figures["host_s"], *figures["product_s"]]

    group = Group(0, num_ranks, torch.device("cpu"))
    engine = SimpleNamespace(group=group, sum_over_ranks=sum_over_ranks)
    pace = Pace(every, engine, lambda kind, message, **details: told.append((kind, message, details)))
    return pace, told, figures.update


def run(pace, num_windows, start=0):
    for step in range(start * pace.every + 1, (start + num_windows) * pace.every + 1):
        pace.ready()
        pace.met(step)
        pace.stepped(step, 1.0)


def test_a_rank_that_comes_late_is_named_once():
    """All would wait for it, and only a profile of every rank would tell for whom."""
    pace, told, given = paces()
    given(host_s=[0.01, 0.01, 0.31], product_s=[1e-3] * 3)
    run(pace, NUM_WINDOWS - 1)
    assert not told
    run(pace, 4, start=NUM_WINDOWS - 1)
    ((kind, message, details),) = told
    assert (kind, details["rank"]) == ("slow_rank", 2)
    assert "rank 2 comes to its micro-batches 0.3 s after the others, in steps of 1 s" in message
    # Well again, and slow again.
    given(host_s=[0.01] * 3)
    run(pace, 1, start=8)
    given(host_s=[0.01, 0.01, 0.31])
    run(pace, NUM_WINDOWS, start=9)
    assert len(told) == 2


def test_a_device_that_computes_slowly_is_named():
    """A GPU that throttles would make a whole cluster as slow as itself."""
    pace, told, given = paces()
    given(host_s=[0.01] * 3, product_s=[1e-3, 2e-3, 1e-3])
    run(pace, NUM_WINDOWS)
    ((_, message, details),) = told
    assert details["rank"] == 1
    assert "rank 1 takes 2.00 times as long as the others for one product" in message


@pytest.mark.parametrize(
    "slow", [{"host_s": [0.01, 0.05, 0.02]}, {"product_s": [1e-3, 1.2e-3, 1e-3]}, {"host_s": [0.3, 0.3, 0.3]}]
)
def test_small_differences_and_what_all_have_in_common_are_let_be(slow):
    """Warnings that mean nothing would be read by nobody."""
    pace, told, given = paces()
    given(**{"host_s": [0.01] * 3, "product_s": [1e-3] * 3, **slow})
    run(pace, 2 * NUM_WINDOWS)
    assert not told


def test_one_rank_is_compared_with_nobody():
    pace, told, _ = paces(num_ranks=1)
    pace.ready()
    pace.met(4)
    pace.stepped(4, 1.0)
    assert not told
