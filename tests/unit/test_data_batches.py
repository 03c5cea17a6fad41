"""A batch is a pure function of the data position."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.batches import Batch, WindowStream
from data.build import build_dataset
from data.config import DataConfig
from data.shards import Dataset
from seedbed.errors import DataError
from seedbed.randomness import generator

END = 0


@dataclass
class Numbered:
    """A split whose token i is i + 1, so that a window shows where it was cut."""

    num_tokens: int
    name: str = "train"
    end_of_text_id: int = END

    def tokens(self, start, stop):
        assert 0 <= start <= stop <= self.num_tokens
        return np.arange(start + 1, stop + 1)


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """A real split of a few thousand tokens in several shards."""
    folder = tmp_path_factory.mktemp("batches")
    for number in range(60):
        rng = generator(number, "text")
        words = rng.integers(500, size=int(rng.integers(2, 120)))
        (folder / f"{number}.txt").write_text(" ".join(f"w{value}" for value in words))
    config = DataConfig(source=str(folder), pattern="*.txt", vocab_size=300, shard_tokens=1500)
    return Dataset.open(build_dataset(config, folder / "out")).split("train")


def fields(batch: Batch):
    return batch.tokens, batch.targets, batch.weights, batch.documents


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
    stream = WindowStream(Numbered(num_tokens), context, seed)
    assert stream.num_windows == (num_tokens - 1) // context
    batch = stream.batch(stream.position_of_epoch(epoch), stream.num_windows)
    first = np.sort(batch.tokens[:, 0])
    assert np.array_equal(first, np.arange(stream.num_windows) * context + 1)
    assert np.array_equal(batch.tokens, batch.tokens[:, :1] + np.arange(context))
    assert np.array_equal(batch.targets, batch.tokens + 1)


def test_epochs_and_seeds_have_orders_of_their_own():
    """Otherwise every epoch would repeat the same batches."""
    stream = WindowStream(Numbered(5001), 10, seed=0)
    orders = [stream.windows(stream.position_of_epoch(epoch), 500) for epoch in range(3)]
    orders.append(WindowStream(Numbered(5001), 10, seed=1).windows(0, 500))
    for number, one in enumerate(orders):
        assert not np.array_equal(one, np.arange(500))
        for other in orders[:number]:
            assert (one == other).mean() < 0.05


def test_without_shuffle_windows_come_in_order():
    """Otherwise validation could not go through the holdout once, front to back."""
    stream = WindowStream(Numbered(101), 10, seed=0, shuffle=False)
    assert stream.windows(0, 12).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]


def test_shapes_types_and_document_boundaries(split):
    """Otherwise attention could not be kept within documents, or a loss would count wrong tokens."""
    stream = WindowStream(split, 64, seed=0)
    batch = stream.batch(5, 7)
    assert len(batch) == 7
    assert [field.shape for field in fields(batch)] == [(7, 64)] * 4
    assert [field.dtype for field in fields(batch)] == [np.int64, np.int64, np.float32, np.int32]
    assert all(field.flags.c_contiguous for field in fields(batch))
    assert (batch.weights == 1).all()
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
        WindowStream(Numbered(64, name="holdout"), 64, seed=0)
    assert "model.context" in raised.value.fix
    assert WindowStream(Numbered(65), 64, seed=0).batch(0, 1).targets[0, -1] == 65
