"""Span corruption and the objective of encoder-decoders."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from seedbed.errors import ConfigError
from training.objectives.sequence_to_sequence import SequenceToSequence, SequenceToSequenceBatch
from training.objectives.span_corruption import SpanCorruption

SENTINELS = tuple(range(999, 699, -1))
END = 1
T5 = SpanCorruption(SENTINELS, END)


def restored(corrupted):
    """The text, from inputs and targets alone."""
    assert corrupted.inputs[-1] == corrupted.targets[-1] == END
    holes, mark = {}, None
    for token in corrupted.targets[:-1].tolist():
        if token in SENTINELS:
            mark, holes[token] = token, []
        else:
            holes[mark].append(token)
    assert list(holes) == list(SENTINELS[: len(holes)])
    assert holes.pop(mark) == []
    text = []
    for token in corrupted.inputs[:-1].tolist():
        text += holes.pop(token) if token in SENTINELS else [token]
    assert holes == {}
    return text


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 300), st.floats(0.05, 0.6), st.floats(1, 6), st.integers(0, 99))
def test_inputs_and_targets_together_are_the_text(num_tokens, density, length, sample):
    """Tokens would be lost, or learnt in the wrong place."""
    corruption = SpanCorruption(SENTINELS, END, density, length)
    text = np.arange(num_tokens) + 2
    corrupted = corruption.corrupt(text, 0, 0, sample)
    assert restored(corrupted) == text.tolist()
    assert (len(corrupted.inputs), len(corrupted.targets)) == corruption.lengths(num_tokens)
    inside = np.isin(corrupted.inputs, SENTINELS)
    assert not (inside[1:] & inside[:-1]).any()


def test_lengths_are_those_of_t5():
    """568 tokens fill an encoder of 512; targets of 114 tokens have a last sentinel besides."""
    assert T5.window(512) == 568
    assert T5.lengths(568) == (512, 114 + 1)


def test_holes_are_as_many_and_as_long_as_said_and_may_be_anywhere():
    hidden, spans = np.zeros(200), []
    for sample in range(2000):
        inputs, targets = T5.corrupt(np.arange(200) + 2, 3, 0, sample)
        hidden[targets[targets < 700][:-1] - 2] += 1
        spans.append((inputs >= 700).sum())
    assert set(spans) == {10}
    share = hidden / 2000
    assert share.sum() == 30
    # No place is preferred; near the ends fewer spans can lie over one.
    assert abs(share[8:-8] - share[8:-8].mean()).max() < 5 * np.sqrt(0.15 * 0.85 / 2000)
    assert share[8:-8].mean() == pytest.approx(0.15, rel=0.05)
    assert share[[0, -1]].min() > 0.03


def test_holes_are_a_function_of_seed_epoch_and_sample():
    text = np.arange(100) + 2
    first = T5.corrupt(text, 0, 0, 0)
    assert np.array_equal(first.inputs, T5.corrupt(text, 0, 0, 0).inputs)
    for where in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert not np.array_equal(first.inputs, T5.corrupt(text, *where).inputs)


def test_too_few_sentinels_and_too_short_contexts_are_refused():
    with pytest.raises(ConfigError, match="100 tokens get 5 spans, which take 6 sentinels; there are 5"):
        SpanCorruption(SENTINELS[:5], END).corrupt(np.arange(100), 0, 0, 0)
    with pytest.raises(ConfigError, match="too short"):
        T5.window(2)


class Recall(nn.Module):
    """An encoder-decoder of the simplest kind: the mean of the valid source, added to each target before."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 8)

    def forward(self, tokens, decoder_tokens, valid):
        source = (self.embedding(tokens) * valid.unsqueeze(-1)).sum(1, keepdim=True)
        return F.linear(self.embedding(decoder_tokens) + source, self.embedding.weight)


def test_a_target_is_predicted_from_the_source_and_what_is_before_it():
    torch.manual_seed(0)
    tokens, targets = torch.randint(0, 30, (2, 3, 7))
    weights = torch.tensor([1.0] * 5 + [0.0] * 2).expand(3, 7)
    batch = SequenceToSequenceBatch(tokens, torch.ones(3, 7, dtype=torch.bool), targets, weights)
    model, objective = Recall(), SequenceToSequence(start_id=0)
    before = torch.cat([torch.zeros(3, 1, dtype=torch.long), targets[:, :-1]], dim=1)
    losses = F.cross_entropy(model(tokens, before, batch.valid).mT, targets, reduction="none")
    total, weight = objective.loss(model, batch)
    torch.testing.assert_close(total, losses[:, :5].sum())
    assert weight == 15
    padded = batch._replace(targets=torch.where(weights > 0, targets, 29))
    torch.testing.assert_close(objective.loss(model, padded).total, total)
