"""Exact copies and connected components, against the plain way to find them."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.components import Components
from data.exact_duplicates import first_occurrences
from seedbed.randomness import generator


def digests_of(numbers):
    return np.array([list(hashlib.sha256(b"%d" % number).digest()) for number in numbers], dtype=np.uint8)


def plain_firsts(numbers):
    firsts = {}
    return [firsts.setdefault(number, place) for place, number in enumerate(numbers)]


@pytest.mark.parametrize("bucket_documents", [1, 7, 100, 2**24])
def test_the_first_of_equal_digests_is_found(bucket_documents):
    """Otherwise a copy would be learnt twice, or which copy is kept would hang on memory."""
    numbers = generator(1, "test").integers(300, size=1000).tolist()
    digests = digests_of(numbers)
    expected = plain_firsts(numbers)
    assert first_occurrences(digests, bucket_documents).tolist() == expected
    parts = np.split(digests, [0, 1, 500, 500, 1000])
    assert first_occurrences(parts, bucket_documents).tolist() == expected


def test_digests_that_begin_alike_are_different():
    """Otherwise a document would be dropped for 8 bytes in common."""
    digests = np.zeros((6, 32), dtype=np.uint8)
    digests[1, 31] = digests[2, 9] = digests[4, 31] = 1
    digests[5, 8] = 1
    assert first_occurrences(digests).tolist() == [0, 1, 2, 0, 1, 5]


def test_digests_may_be_mapped_files(tmp_path):
    """Otherwise the digests of all documents would have to fit in memory."""
    numbers = generator(2, "test").integers(50, size=200).tolist()
    parts = []
    for part in range(2):
        np.save(tmp_path / f"{part}.npy", digests_of(numbers[100 * part : 100 * part + 100]))
        parts.append(np.load(tmp_path / f"{part}.npy", mmap_mode="r"))
    assert first_occurrences(parts).tolist() == plain_firsts(numbers)


def test_nothing_has_no_copies():
    """Otherwise an empty part would stop the build."""
    empty = np.empty((0, 32), dtype=np.uint8)
    assert first_occurrences([]).tolist() == []
    assert first_occurrences([empty, empty]).tolist() == []


@given(st.integers(1, 40).flatmap(lambda size: st.tuples(st.just(size), pairs_of(size), pairs_of(size))))
def test_components_are_what_pairs_connect(case):
    """Otherwise near-copies of one text would be told apart."""
    size, *batches = case
    components, labels = Components(size), list(range(size))
    for pairs in batches:
        left, right = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        components.join(left, right)
        for one, other in pairs:
            low, high = sorted((labels[one], labels[other]))
            labels = [low if label == high else label for label in labels]
        assert components.labels.tolist() == labels


def pairs_of(size):
    member = st.integers(0, size - 1)
    return st.lists(st.tuples(member, member), max_size=60)


@pytest.mark.parametrize("shape", ["chain", "backwards", "star", "shuffled", "zigzag"])
def test_components_of_awkward_shapes_take_few_rounds(shape):
    """Otherwise one long chain of near-copies would cost a pass over all documents per link."""
    size = 200_000
    numbers = np.arange(size)
    order = {
        "chain": numbers,
        "backwards": numbers[::-1],
        "star": numbers,
        "shuffled": generator(3, "test").permutation(size),
        "zigzag": np.where(numbers % 2 == 0, numbers // 2, size - 1 - numbers // 2),
    }[shape]
    left = np.full(size - 1, size - 1) if shape == "star" else order[:-1]
    components = Components(size)
    components.join(left, numbers[:-1] if shape == "star" else order[1:])
    assert (components.labels == 0).all()
