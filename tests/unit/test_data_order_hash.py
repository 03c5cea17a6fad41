"""One number per step, the same however the step is divided among ranks, and another for other data."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_splits import numbered_documents, web_lengths, write_split

from data.batches import Batch, WindowStream
from data.config import MixtureStage
from data.mixture import MixtureStream
from data.order_hash import add_digests, sample_digests, show_digest, step_digest
from data.packing import PackedStream

STEP_SAMPLES, MICRO_BATCH = 32, 4
NUM_STEPS = 6


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    """Two real splits."""
    folder = tmp_path_factory.mktemp("hash")
    return [
        write_split(folder / name, numbered_documents(web_lengths(300, 50, seed)))
        for seed, name in enumerate("ab")
    ]


def stream_of(splits) -> MixtureStream:
    """A packed mixture, as a process of its own would open it."""
    one, other = splits
    streams = {
        "packed": PackedStream(one, 31, 0, within_documents=True),
        "windows": WindowStream(other, 31, 0, within_documents=True),
    }
    stages = [
        MixtureStage(from_tokens=0, weights={"packed": 0.6, "windows": 0.4}),
        MixtureStage(from_tokens=70 * 31, weights={"packed": 0.1, "windows": 0.9}),
    ]
    return MixtureStream(streams, stages)


def hash_of_step(splits, step: int, num_ranks: int) -> int:
    """The hash of one step whose micro-batches are dealt out to ranks, each with streams of its own."""
    parts = []
    for rank in range(num_ranks):
        stream = stream_of(splits)
        for first in range(rank * MICRO_BATCH, STEP_SAMPLES, num_ranks * MICRO_BATCH):
            batch = stream.batch(step * STEP_SAMPLES + first, MICRO_BATCH)
            parts.append(step_digest(sample_digests(batch), first))
    return add_digests(reversed(parts))


def test_the_same_hash_on_any_number_of_ranks(splits):
    """Otherwise nobody could prove that a resized run went on with the same data."""
    alone = [hash_of_step(splits, step, 1) for step in range(NUM_STEPS)]
    assert len(set(alone)) == NUM_STEPS
    for num_ranks in (2, 4, 8):
        assert [hash_of_step(splits, step, num_ranks) for step in range(NUM_STEPS)] == alone
    resized = [hash_of_step(splits, step, ranks) for step, ranks in enumerate([1, 8, 2, 2, 4, 8])]
    assert resized == alone


@given(st.lists(st.integers(1, 9), max_size=6))
@settings(max_examples=40, deadline=None)
def test_the_same_hash_for_any_micro_batches(splits, sizes):
    """Otherwise another micro-batch size would look like other data."""
    stream, at, parts = stream_of(splits), 0, []
    for size in sizes:
        parts.append(step_digest(sample_digests(stream.batch(at, size)), at))
        at += size
    assert add_digests(parts) == step_digest(sample_digests(stream.batch(0, at)), 0)


def test_every_change_shows(splits):
    """Otherwise the hash would prove nothing."""
    batch = stream_of(splits).batch(0, 8)
    digest = step_digest(sample_digests(batch), 0)
    changed = {}
    for field in fields(Batch):
        values = getattr(batch, field.name).copy()
        values[3, -1] += 1
        changed[field.name] = step_digest(sample_digests(replace(batch, **{field.name: values})), 0)
    digests = sample_digests(batch)
    assert len(set(digests.tolist())) == 8
    exchanged = digests.copy()
    exchanged[[2, 5]] = exchanged[[5, 2]]
    others = [
        *changed.values(),
        step_digest(exchanged, 0),
        step_digest(digests, 1),
        step_digest(digests[:7], 0),
        step_digest(np.append(digests, digests[7]), 0),
    ]
    assert len({digest, *others}) == 1 + len(others)


def test_the_hash_is_frozen():
    """Otherwise an upgrade would make every recorded hash look like other data."""
    tokens = np.arange(6).reshape(2, 3)
    batch = Batch(
        tokens,
        tokens + 1,
        np.ones((2, 3), dtype=np.float32),
        np.zeros((2, 3), dtype=np.int32),
        np.zeros((2, 3), dtype=np.int32),
    )
    wider = replace(batch, documents=batch.documents.astype(np.int64))
    assert sample_digests(batch).tolist() == sample_digests(wider).tolist()
    assert show_digest(step_digest(sample_digests(batch), 0)) == "bfa9fe0786a3fb95"
    assert show_digest(5) == "0000000000000005"
