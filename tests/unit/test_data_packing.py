"""Packed rows lose nothing, cut little, and say what they did."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_splits import END, Simulated, numbered_documents, web_lengths, write_split

from data.batches import WindowStream
from data.packing import PackedStream, plan_block
from seedbed.errors import DataError

METHODS = ("best-fit", "first-fit-decreasing")
OVERFLOWS = ("split", "crop")
CONTEXT = 63


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """A real split of some 700 rows, of documents much shorter and much longer than a row."""
    documents = numbered_documents(web_lengths(1100, 40))
    split = write_split(tmp_path_factory.mktemp("packing"), documents, shard_tokens=9000)
    assert 600 < split.num_tokens // (CONTEXT + 1) < 65_536 // (CONTEXT + 1)
    return split


@st.composite
def blocks(draw):
    """Edges of documents in a block, its rows and their capacity."""
    num_rows, capacity = draw(st.integers(1, 30)), draw(st.integers(2, 40))
    size = num_rows * capacity
    edges = draw(st.sets(st.integers(0, size), max_size=draw(st.integers(0, 80))))
    return np.array(sorted(edges), dtype=np.int64), num_rows, capacity


@given(blocks(), st.sampled_from(METHODS), st.sampled_from(OVERFLOWS))
@settings(max_examples=200, deadline=None)
def test_plans_keep_every_token_and_every_limit(block, method, overflow):
    """Otherwise text would be lost or learned twice, or one row write over another."""
    edges, num_rows, capacity = block
    plan = plan_block(edges, num_rows, capacity, method, overflow)
    size = num_rows * capacity
    seen = np.zeros(size, dtype=int)
    documents = np.unique(np.append(edges, [0, size]))
    for row in range(num_rows):
        pieces = range(plan.first[row], plan.first[row + 1])
        filled = 0
        for piece in pieces:
            begin, length = int(plan.begins[piece]), int(plan.lengths[piece])
            assert length > 0
            seen[begin : begin + length] += 1
            # A piece is part of one document.
            assert np.searchsorted(documents, begin, "right") == np.searchsorted(
                documents, begin + length, "left"
            )
            filled += length
            assert plan.last[piece] == filled - 1
            following = piece + 1 if piece + 1 in pieces else None
            natural = (
                following is not None and begin + length in edges and int(plan.begins[following]) in edges
            )
            assert plan.leads_on[piece] == natural
        assert filled <= capacity
        assert overflow == "crop" or filled == capacity
    assert plan.first[-1] == len(plan.begins)
    assert seen.max() == 1
    assert overflow == "crop" or seen.min() == 1


def test_plans_are_frozen():
    """Otherwise an upgrade would change the data order of runs that are under way."""
    edges = np.array([3, 6, 11, 17, 25, 33, 34, 35])
    plans = {(method, overflow): [] for method in METHODS for overflow in OVERFLOWS}
    for (method, overflow), rows in plans.items():
        plan = plan_block(edges, 4, 10, method, overflow)
        pieces = list(zip(plan.begins.tolist(), plan.lengths.tolist(), strict=True))
        rows += [pieces[start:stop] for start, stop in itertools.pairwise(plan.first)]
    assert plans == {
        ("best-fit", "split"): [
            [(5, 1), (17, 8), (34, 1)],
            [(3, 2), (25, 8)],
            [(0, 3), (11, 6), (33, 1)],
            [(6, 5), (35, 5)],
        ],
        ("best-fit", "crop"): [
            [(17, 8), (34, 1)],
            [(3, 2), (25, 8)],
            [(0, 3), (11, 6), (33, 1)],
            [(6, 5), (35, 5)],
        ],
        ("first-fit-decreasing", "split"): [
            [(17, 8), (33, 1), (34, 1)],
            [(3, 2), (25, 8)],
            [(0, 3), (5, 1), (11, 6)],
            [(6, 5), (35, 5)],
        ],
        ("first-fit-decreasing", "crop"): [
            [(17, 8), (33, 1), (34, 1)],
            [(3, 2), (25, 8)],
            [(0, 3), (11, 6)],
            [(6, 5), (35, 5)],
        ],
    }


def reference_best_fit(lengths: list[int], num_rows: int, capacity: int) -> tuple[list[int], list[int]]:
    """Room left by row, and lengths that fit nowhere, by the definition."""
    room, homeless = [capacity] * num_rows, []
    for length in sorted(lengths, reverse=True):
        fitting = [(space, row) for row, space in enumerate(room) if space >= length]
        if fitting:
            room[min(fitting)[1]] -= length
        else:
            homeless.append(length)
    return room, homeless


def reference_first_fit(lengths: list[int], num_rows: int, capacity: int) -> tuple[list[int], list[int]]:
    room, homeless = [capacity] * num_rows, []
    for length in sorted(lengths, reverse=True):
        row = next((row for row, space in enumerate(room) if space >= length), None)
        if row is None:
            homeless.append(length)
        else:
            room[row] -= length
    return room, homeless


@given(blocks(), st.sampled_from(METHODS))
@settings(max_examples=100, deadline=None)
def test_pieces_go_where_the_algorithm_says(block, method):
    """Otherwise it would pack, but not as published."""
    edges, num_rows, capacity = block
    size = num_rows * capacity
    lengths = np.diff(np.unique(np.append(edges, [0, size]))).tolist()
    full = sum(length // capacity for length in lengths)
    rests = [length % capacity for length in lengths if length % capacity]
    reference = reference_best_fit if method == "best-fit" else reference_first_fit
    room, homeless = reference(rests, num_rows - full, capacity)
    # Cropped, a homeless piece takes one hole, and the rest of it is lost.
    for length, hole in zip(homeless, sorted(range(len(room)), key=lambda row: -room[row]), strict=False):
        room[hole] -= min(length, room[hole])
    plan = plan_block(edges, num_rows, capacity, method, "crop")
    filled = [int(plan.lengths[start:stop].sum()) for start, stop in itertools.pairwise(plan.first)]
    assert sorted(capacity - fill for fill in filled) == sorted([0] * full + room)


@pytest.mark.parametrize("method", METHODS)
def test_an_epoch_has_every_token_once(split, method):
    """Otherwise some of the corpus would never be learned from."""
    stream = PackedStream(split, CONTEXT, 1, method)
    batch = stream.batch(0, stream.num_samples)
    rows = np.concatenate([batch.tokens, batch.targets[:, -1:]], axis=1)
    kept = stream.num_samples * (CONTEXT + 1)
    assert np.array_equal(np.sort(rows.ravel()), np.sort(split.tokens(0, kept)))
    assert split.num_tokens - kept <= CONTEXT


@given(start=st.integers(0, 2000), counts=st.lists(st.integers(0, 40), max_size=6), seed=st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_any_division_of_a_range_gives_the_same_samples(split, start, counts, seed):
    """Otherwise a resume, or another number of ranks, would train on other text."""
    whole = PackedStream(split, CONTEXT, seed).batch(start, sum(counts))
    stream, position = PackedStream(split, CONTEXT, seed), start
    done = 0
    for count in counts:
        part = stream.batch(position, count)
        for name in ("tokens", "targets", "weights", "documents", "positions"):
            assert np.array_equal(getattr(part, name), getattr(whole, name)[done : done + count])
        position, done = position + count, done + count


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize("within_documents", [False, True])
def test_targets_that_do_not_follow_weigh_nothing(split, method, overflow, within_documents):
    """Otherwise a model would learn that texts break off in the middle of a word and others begin there."""
    stream = PackedStream(split, CONTEXT, 2, method, overflow, within_documents=within_documents)
    batch = stream.batch(0, stream.num_samples)
    # Token i of the split has the id i + 1, unless it ends a document.
    text = np.append(split.tokens(0, split.num_tokens), -1)
    begins = split.documents_starting_in(0, split.num_tokens) + 1
    for tokens, targets, weights, documents, positions in zip(
        batch.tokens, batch.targets, batch.weights, batch.documents, batch.positions, strict=True
    ):
        follows = (tokens != END) & (targets == text[tokens])
        opens_another = (tokens == END) & np.isin(targets, begins)
        assert np.array_equal(weights == 1, follows if within_documents else follows | opens_another)
        assert set(np.diff(documents).tolist()) <= {0, 1}
        expected = np.arange(CONTEXT)
        if within_documents:
            runs = np.flatnonzero(np.diff(documents, prepend=-1))
            expected = expected - np.repeat(runs, np.diff(runs, append=CONTEXT))
        assert np.array_equal(positions, expected)
    assert set(np.unique(batch.weights).tolist()) == {0, 1}


def test_documents_end_with_their_pieces(split):
    """Otherwise attention kept inside documents would see two of them, or half of one."""
    stream = PackedStream(split, CONTEXT, 0, within_documents=True)
    batch = stream.batch(0, 200)
    for tokens, documents in zip(batch.tokens, batch.documents, strict=True):
        for document in set(documents.tolist()):
            piece = tokens[documents == document]
            body = piece[:-1] if piece[-1] == END else piece
            assert END not in body
            assert np.array_equal(np.diff(body), np.ones(max(0, len(body) - 1)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("overflow", OVERFLOWS)
def test_rates_are_what_the_rows_show(split, method, overflow):
    """Otherwise the reported waste would be a claim, not a measurement."""
    stream = PackedStream(split, CONTEXT, 0, method, overflow, shuffle=False)
    rates = stream.rates(num_blocks=10**6)
    assert rates["blocks"] == rates["of_blocks"] == stream.num_blocks == 3
    batch = stream.batch(0, stream.num_samples)
    rows = np.concatenate([batch.tokens, batch.targets[:, -1:]], axis=1)
    kept = rows.size
    starts = split.documents_starting_in(0, kept).tolist()
    assert (rates["tokens"], rates["documents"]) == (kept, len(starts))
    text = split.tokens(0, kept)
    lost = np.flatnonzero(~np.isin(text, rows) & (text != END))
    # Ends are alike, so that a lost one shows only as one more of the padding.
    assert 0 <= round(rates["cropped_tokens"] * kept) - len(lost) <= len(starts)
    assert rates["padded_tokens"] == rates["cropped_tokens"]
    assert (rates["cropped_tokens"] > 0) == (overflow == "crop")

    flat = rows.ravel().tolist()
    where = {token: place for place, token in enumerate(flat) if token != END}
    num_cut = 0
    for start, stop in zip(starts, [*starts[1:], split.num_tokens], strict=True):
        place = where.get(start + 1, 0)
        whole = flat[place : place + stop - start] == split.tokens(start, stop).tolist()
        num_cut += not (whole and place // (CONTEXT + 1) == (place + stop - start - 1) // (CONTEXT + 1))
    assert rates["cut_documents"] * len(starts) == pytest.approx(num_cut, abs=3)
    assert rates["documents_longer_than_row"] <= rates["cut_documents"]


def test_fewer_documents_are_cut_than_by_chunking(split):
    """Otherwise packing would cost without a gain."""
    for method in METHODS:
        rates = PackedStream(split, CONTEXT, 0, method).rates()
        avoidable = rates["cut_documents"] - rates["documents_longer_than_row"]
        assert avoidable < 0.15 * (
            rates["cut_documents_without_packing"] - rates["documents_longer_than_row"]
        )


def test_small_and_large_splits(tmp_path):
    """Otherwise a demonstration, or a corpus of trillions, would need another code path."""
    tiny = write_split(tmp_path, numbered_documents([10, 30, 25]))
    assert PackedStream(tiny, 64, 0).num_samples == 1
    assert PackedStream(tiny, 64, 0).batch(5, 2).tokens.shape == (2, 64)
    with pytest.raises(DataError, match="65 tokens, fewer than one window"):
        PackedStream(tiny, 65, 0)
    started = time.perf_counter()
    stream = PackedStream(Simulated(15 * 10**12), 2048, 0)
    near, far = stream.batch(0, 8), stream.batch(stream.num_samples * 3 - 4, 8)
    assert time.perf_counter() - started < 2
    assert near.weights.mean() > 0.99
    assert len({*near.tokens[:, 0].tolist(), *far.tokens[:, 0].tolist()}) == 16


def test_order_is_that_of_windows_of_as_many(split):
    """Otherwise a packed run would have a shuffling of its own to trust."""
    stream = PackedStream(split, CONTEXT, 4)
    straight = PackedStream(split, CONTEXT, 4, shuffle=False).batch(0, stream.num_samples)
    order = WindowStream(Simulated(stream.num_samples + 1), 1, 4).windows(0, 50)
    assert np.array_equal(stream.batch(0, 50).tokens, straight.tokens[order])
