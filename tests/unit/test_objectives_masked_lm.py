"""Masked pieces and sentence pairs: two means over a step, however it is cut."""

import pytest
import torch
import torch.nn.functional as F
from test_objectives import assert_same, gradients

from models.bert.config import EncoderConfig
from models.bert.tasks import make_encoder
from training.objectives import LossSum
from training.objectives.masked_lm import MASKED, PAIRS, MaskedBatch, MaskedLM

V, T = 53, 20


def encoder(head="pretraining"):
    torch.manual_seed(0)
    sizes = {"num_layers": 2, "width": 32, "num_heads": 4, "context": T, "vocab_size": V}
    model = make_encoder(EncoderConfig(head=head, **sizes, dropout=0.0, attention_dropout=0.0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def random_batch(rows=5):
    generator = torch.Generator().manual_seed(2)
    tokens, labels = torch.randint(0, V, (2, rows, T), generator=generator)
    valid = torch.arange(T) < torch.randint(T // 2, T + 1, (rows, 1), generator=generator)
    weights = ((torch.rand(rows, T, generator=generator) < 0.3) & valid).float()
    in_order = torch.randint(0, 2, (rows,), generator=generator)
    segments = (torch.arange(T) >= T // 3).long().expand(rows, T)
    return MaskedBatch(tokens, segments, valid, labels, weights, in_order, torch.ones(rows))


def by_the_book(model, batch):
    """Both means in plain PyTorch, from logits of all positions."""
    logits = model(batch.tokens, batch.segments, batch.valid)
    labels = batch.labels.masked_fill(batch.weights == 0, -100)
    masked = F.cross_entropy(logits.tokens.flatten(0, 1), labels.flatten())
    return masked + F.cross_entropy(logits.pair, 1 - batch.in_order)


def test_a_step_is_the_sum_of_both_means():
    model, batch = encoder(), random_batch()
    loss = MaskedLM().loss(model, batch)
    mean = by_the_book(model, batch)
    assert (loss.total / loss.weight).item() == pytest.approx(mean.item(), rel=1e-5)
    expected = gradients(model, LossSum(mean, torch.tensor(1.0)))
    found = {n: g / loss.weight for n, g in gradients(model, MaskedLM().loss(model, batch)).items()}
    assert_same(found, expected, atol=1e-5, rtol=1e-4)


def test_micro_batches_with_the_weights_of_the_step_add_up_to_it():
    """With the micro-batch's own weights, pairs would count for more where few pieces are masked."""
    model, batch, objective = encoder(), random_batch(), MaskedLM()
    expected = gradients(model, objective.loss(model, batch))
    step_weights = {name: weight.item() for name, weight in batch.part_weights().items()}
    cut = [[0], [1, 2, 3], [4]]
    parts = [MaskedBatch(*(x[rows] for x in batch[:7]), step_weights) for rows in cut]
    idle = parts[0]._replace(weights=0 * parts[0].weights, pair_weights=0 * parts[0].pair_weights)
    found, weight = {}, 0.0
    for part in (*parts, idle):
        loss = objective.loss(model, part)
        weight += loss.weight.item()
        for name, grad in gradients(model, loss).items():
            found[name] = found.get(name, 0) + grad
    assert weight == step_weights[MASKED]
    assert_same(found, expected, atol=1e-4, rtol=1e-4)
    alone = MaskedLM().loss(model, parts[0]._replace(step_weights=None)).total
    assert not torch.allclose(alone, objective.loss(model, parts[0]).total)


def test_padding_changes_nothing():
    model, batch = encoder(), random_batch()
    narrow = batch._replace(valid=batch.valid & (torch.arange(T) < 15))
    narrow = narrow._replace(weights=narrow.weights * narrow.valid)
    short = MaskedBatch(*(x[:, :15] if x.ndim == 2 else x for x in narrow[:7]))
    ours, theirs = MaskedLM().loss(model, narrow), MaskedLM().loss(model, short)
    torch.testing.assert_close(ours.total, theirs.total)
    assert ours.weight == theirs.weight


def test_a_model_without_a_head_for_pairs_learns_from_pieces_alone():
    model, batch = encoder("masked_lm"), random_batch()
    assert MaskedLM().parts(model, batch).keys() == {MASKED}
    assert encoder().training
    assert MaskedLM().parts(encoder(), batch).keys() == {MASKED, PAIRS}
    loss = MaskedLM().loss(model, batch)
    logits = model(batch.tokens, batch.segments, batch.valid)
    labels = batch.labels.masked_fill(batch.weights == 0, -100)
    expected = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    torch.testing.assert_close(loss.total, expected)


def test_the_first_column_says_in_order():
    """Imported BERT checkpoints would be asked the opposite of what they answer."""
    model, batch = encoder(), random_batch()
    with torch.no_grad():
        model.pair.weight.zero_()
        model.pair.bias.copy_(torch.tensor([20.0, 0.0]))
    in_order = batch._replace(in_order=torch.ones_like(batch.in_order))
    assert MaskedLM().parts(model, in_order)[PAIRS].total < 1e-6
    swapped = batch._replace(in_order=torch.zeros_like(batch.in_order))
    assert MaskedLM().parts(model, swapped)[PAIRS].total.item() == pytest.approx(20 * 5)
