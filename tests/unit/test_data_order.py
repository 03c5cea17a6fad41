"""The shuffled order is a permutation, a fair one, and costs nothing to start."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.order import BLOCKS_PER_POOL, UNITS_PER_BLOCK, EpochOrder, Permutation, PooledOrder
from seedbed.randomness import seed64


def test_every_index_comes_exactly_once():
    """Otherwise some text would be trained on twice an epoch, and some never."""
    for n in [*range(1, 300), 1023, 1024, 1025, 4097, 65_536, 99_991, 1_000_000]:
        images = Permutation(n, n * 7 + 1)(np.arange(n))
        assert images.dtype == np.int64
        assert np.array_equal(np.sort(images), np.arange(n)), n


@given(st.integers(1, 2**62 - 1), st.integers(0, 2**63 - 1), st.data())
@settings(deadline=None)
def test_large_orders_stay_in_range_and_do_not_collide(n, seed, data):
    """Otherwise a trillion-token corpus would meet an overflow that no small test shows."""
    indices = data.draw(st.lists(st.integers(0, n - 1), unique=True, max_size=50))
    images = Permutation(n, seed)(np.array(indices, dtype=np.int64))
    assert len(set(images.tolist())) == len(indices)
    assert all(0 <= image < n for image in images.tolist())


def test_one_index_and_arrays_of_any_shape_agree():
    """Otherwise a rank that asks for one sample would get another than one that asks for many."""
    permutation = Permutation(1000, 5)
    many = permutation(np.arange(1000).reshape(10, 100))
    assert many.shape == (10, 100)
    assert [permutation(index) for index in range(1000)] == many.ravel().tolist()
    assert isinstance(permutation(3), int)


def test_order_is_frozen():
    """Otherwise an upgrade would change the data order of runs that are under way."""
    assert Permutation(10, 0)(np.arange(10)).tolist() == [2, 6, 7, 3, 1, 9, 8, 5, 4, 0]
    assert Permutation(10**12, 1)(np.array([0, 1, 10**12 - 1])).tolist() == [
        396419705836,
        938857627513,
        940031683149,
    ]
    pooled = PooledOrder(10**10 + 3, 2, 5)
    assert pooled.many(np.array([0, 1, 10**9, 10**10 + 2])).tolist() == [
        6004301618,
        4468071676,
        7404324957,
        3816860062,
    ]
    assert PooledOrder(100, 2, 5, 8, 3).many(np.arange(0, 100, 9)).tolist() == [
        97,
        28,
        26,
        74,
        81,
        13,
        21,
        8,
        62,
        52,
        2,
        56,
    ]


@pytest.mark.parametrize("n", [5, 8, 30])
def test_each_place_is_equally_likely_for_each_index(n):
    """Otherwise small corpora would be seen in nearly the same order each epoch."""
    draws = 4000
    images = np.stack([Permutation(n, seed)(np.arange(n)) for seed in range(draws)])
    counts = np.stack([np.bincount(images[:, index], minlength=n) for index in range(n)])
    chi_squared = ((counts - draws / n) ** 2 / (draws / n)).sum()
    freedom = (n - 1) ** 2
    assert chi_squared < freedom + 5 * np.sqrt(2 * freedom)


def test_neighbours_are_scattered_and_seeds_differ():
    """Otherwise a batch would be consecutive windows of one file."""
    n = 100_000
    one, other = (Permutation(n, seed)(np.arange(n)) for seed in (0, 1))
    assert abs(np.corrcoef(one[:-1], one[1:])[0, 1]) < 0.015
    assert abs(np.corrcoef(one, np.arange(n))[0, 1]) < 0.015
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.015
    assert (np.abs(np.diff(one)) == 1).mean() < 0.001


def test_start_costs_nothing_at_any_size():
    """Otherwise GPUs would wait while an index of all samples is built."""
    started = time.perf_counter()
    Permutation(10**15, 3)(np.arange(1000))
    assert time.perf_counter() - started < 1


def test_what_is_outside_is_refused():
    """Otherwise a wrong position would quietly become some other sample."""
    for index in (-1, 10):
        with pytest.raises(IndexError):
            Permutation(10, 0)(index)
    with pytest.raises(ValueError, match="1 <= n"):
        Permutation(0, 0)


@given(
    n=st.integers(1, 4000),
    width=st.integers(1, 70),
    blocks=st.integers(1, 20),
    seed=st.integers(0, 3),
    epoch=st.integers(0, 3),
)
@settings(max_examples=80, deadline=None)
def test_pooled_order_reaches_every_unit_once(n, width, blocks, seed, epoch):
    """Otherwise whatever does not divide the number of windows would be lost, or read twice."""
    order = PooledOrder(n, seed, epoch, width, blocks)
    units = order.many(np.arange(n))
    assert np.array_equal(np.sort(units), np.arange(n))
    some = np.arange(n)[:: max(1, n // 7)]
    assert np.array_equal(order.many(some), units[some])


@given(n=st.integers(200_000, 2**61), position=st.floats(0, 1), seed=st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_pooled_order_of_any_size_stays_near_itself(n, position, seed):
    """Otherwise each sample of a large corpus would open another shard, and hash another slice."""
    order = PooledOrder(n, seed, 0)
    start = min(int(position * n), n - 5000)
    units = order.many(np.arange(start, start + 5000))
    assert len(set(units.tolist())) == 5000
    assert units.min() >= 0
    assert units.max() < n
    # At most two pools, of fewer than two times BLOCKS_PER_POOL blocks each.
    assert len(set((units // UNITS_PER_BLOCK).tolist())) <= 4 * BLOCKS_PER_POOL


def test_small_corpora_have_the_plain_order():
    """Otherwise the order of every run that is small would have changed."""
    for n in (1, 1000, UNITS_PER_BLOCK * BLOCKS_PER_POOL, 2 * UNITS_PER_BLOCK * BLOCKS_PER_POOL - 300):
        places = np.arange(min(n, 2000))
        for epoch in (0, 3):
            plain = Permutation(n, seed64(7, "order", epoch)).many(places)
            assert np.array_equal(PooledOrder(n, 7, epoch).many(places), plain)


def test_pools_are_made_of_blocks_from_everywhere_and_the_short_one_moves():
    """Otherwise a long corpus would be read front to back, or its tail always at the same time."""
    n, width, blocks = 64 * 40 + 17, 40, 8
    places = []
    for epoch in range(200):
        units = PooledOrder(n, 0, epoch, width, blocks).many(np.arange(n))
        if epoch == 0:
            first = units[: width * blocks]
            assert len(set((first // width).tolist())) <= blocks + 1
            assert first.max() - first.min() > n // 2
            assert (np.abs(np.diff(units)) == 1).mean() < 0.02
        places.append(int(np.flatnonzero(units == n - 1)[0]) / n)
    assert min(places) < 0.1
    assert max(places) > 0.9
    assert abs(np.mean(places) - 0.5) < 5 * np.sqrt(1 / 12 / 200)


@given(
    num_units=st.integers(1, 1500),
    start=st.integers(0, 5000),
    counts=st.lists(st.integers(0, 700), max_size=5),
)
@settings(max_examples=40, deadline=None)
def test_epochs_follow_each_other_however_they_are_asked_for(num_units, start, counts):
    """Otherwise large and small micro-batches would see different orders."""
    order, at = EpochOrder(num_units, 3), start
    for count in counts:
        epochs, units = order.units(at, count)
        expected = np.arange(at, at + count)
        assert np.array_equal(epochs, expected // num_units)
        for epoch in set(epochs.tolist()):
            here = epochs == epoch
            assert np.array_equal(
                units[here], PooledOrder(num_units, 3, epoch).many(expected[here] % num_units)
            )
        at += count
