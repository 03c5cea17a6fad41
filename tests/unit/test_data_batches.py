"""A batch is a pure function of the data position."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_splits import Simulated, numbered_documents, web_lengths, write_split

from data.batches import Batch, WindowStream
from seedbed.errors import DataError


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """A real split of a few thousand tokens in several shards."""
    documents = numbered_documents(web_lengths(60, 90))
    split = write_split(tmp_path_factory.mktemp("batches"), documents, shard_tokens=1500)
    assert split.num_shards > 2
    return split


def fields(batch: Batch):
    return batch.tokens, batch.targets, batch.weights, batch.documents, batch.positions


@given(start=st.integers(0, 2000), counts=st.lists(st.integers(0, 40), max_size=6), seed=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_any_division_of_a_range_gives_the_same_samples(split, start, counts, seed):
    """Otherwise a resume, or another number of ranks, would train on other text."""
    whole = WindowStream(split, 32, seed).batch(start, sum(counts))
    stream, position, parts = WindowStream(split, 32, seed), start, []
    for count in counts:
        parts.append(stream.batch(position, count))
        position += count
    for number, field in enumerate(fields(whole)):
        pieces = [fields(part)[number] for part in parts]
        assert np.array_equal(field, np.concatenate([field[:0], *pieces]))


@given(
    num_tokens=st.integers(2, 500),
    context=st.integers(1, 40),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 9),
)
@settings(max_examples=100, deadline=None)
def test_each_epoch_covers_every_window_once(num_tokens, context, seed, epoch):
    """Otherwise some text would be learned twice and some never."""
    if num_tokens <= context:
        return
    stream = WindowStream(Simulated(num_tokens), context, seed)
    assert stream.num_windows == (num_tokens - 1) // context
    batch = stream.batch(epoch * stream.num_windows, stream.num_windows)
    first = np.sort(batch.tokens[:, 0])
    assert np.array_equal(first, np.arange(stream.num_windows) * context + 1)
    assert np.array_equal(batch.tokens, batch.tokens[:, :1] + np.arange(context))
    assert np.array_equal(batch.targets, batch.tokens + 1)


def test_epochs_and_seeds_have_orders_of_their_own():
    """Otherwise every epoch would repeat the same batches."""
    stream = WindowStream(Simulated(5001), 10, seed=0)
    orders = [stream.windows(epoch * stream.num_windows, 500) for epoch in range(3)]
    orders.append(WindowStream(Simulated(5001), 10, seed=1).windows(0, 500))
    for number, one in enumerate(orders):
        assert not np.array_equal(one, np.arange(500))
        for other in orders[:number]:
            assert (one == other).mean() < 0.05


def test_without_shuffle_windows_come_in_order():
    """Otherwise validation could not go through the holdout once, front to back."""
    stream = WindowStream(Simulated(101), 10, seed=0, shuffle=False)
    assert stream.windows(0, 12).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]


def test_shapes_types_and_document_boundaries(split):
    """Otherwise attention could not be kept within documents, or a loss would count wrong tokens."""
    stream = WindowStream(split, 64, seed=0)
    batch = stream.batch(5, 7)
    assert len(batch) == 7
    assert [field.shape for field in fields(batch)] == [(7, 64)] * 5
    assert [field.dtype for field in fields(batch)] == [np.int64, np.int64, np.float32, np.int32, np.int32]
    assert all(field.flags.c_contiguous for field in fields(batch))
    assert (batch.weights == 1).all()
    assert (batch.positions == np.arange(64)).all()
    for tokens, documents in zip(batch.tokens, batch.documents, strict=True):
        expected, current = [], 0
        for token in tokens:
            expected.append(current)
            current += int(token == split.end_of_text_id)
        assert documents.tolist() == expected
    assert batch.documents.max() >= 1


def test_split_shorter_than_a_window_is_refused_with_its_size():
    """Otherwise a tiny holdout would fail as a division by zero in the middle of a run."""
    with pytest.raises(DataError, match=r"holdout split has 64 tokens.*65") as raised:
        WindowStream(Simulated(64, name="holdout"), 64, seed=0)
    assert "model.context" in raised.value.fix
    assert WindowStream(Simulated(65), 64, seed=0).batch(0, 1).targets[0, -1] == 65


def test_within_documents_nothing_crosses_an_end(split):
    """Otherwise a model would learn to guess an unrelated page from the end of another."""
    apart, joined = (
        WindowStream(split, 64, 0, within_documents=apart).batch(0, 20) for apart in (True, False)
    )
    for name in ("tokens", "targets", "documents"):
        assert np.array_equal(getattr(apart, name), getattr(joined, name))
    assert np.array_equal(apart.weights == 0, apart.tokens == split.end_of_text_id)
    for documents, positions in zip(apart.documents, apart.positions, strict=True):
        for document in set(documents.tolist()):
            here = positions[documents == document]
            assert here.tolist() == list(range(len(here)))
    assert (apart.weights == 0).any()


def test_fifteen_trillion_tokens_start_at_once():
    """Otherwise GPUs would wait for an index, or a far position for those before it."""
    started = time.perf_counter()
    stream = WindowStream(Simulated(15 * 10**12), 2048, seed=1)
    near, far = stream.batch(0, 8), stream.batch(40 * 10**12 // 2048, 8)
    assert time.perf_counter() - started < 1
    assert len({*near.tokens[:, 0].tolist(), *far.tokens[:, 0].tolist()}) == 16
    assert np.array_equal(far.targets, far.tokens + 1)
