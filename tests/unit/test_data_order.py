"""The shuffled order is a permutation, a fair one, and costs nothing to start."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.order import Permutation


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
