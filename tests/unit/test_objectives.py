"""Causal language modelling: cross-entropy whole and in chunks, its extra terms, what a step makes of it."""

import pytest
import torch
import torch.nn.functional as F
from live_tensors import LiveTensors

from models.config import ModelConfig
from models.transformer import Transformer
from training.objectives import LossSum, TensorBatch, combine
from training.objectives.causal_lm import CausalLM
from training.objectives.cross_entropy import chunked_cross_entropy, cross_entropy

TINY = {"num_layers": 2, "width": 32, "num_heads": 4, "context": 24, "vocab_size": 61}
OPTIONS = [{}, {"label_smoothing": 0.1}, {"z_loss": 1e-2}, {"label_smoothing": 0.2, "z_loss": 1e-3}]


def tiny(**changes):
    torch.manual_seed(0)
    return Transformer(ModelConfig(**{**TINY, **changes}))


def random_batch(rows=4, vocab_size=61):
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, vocab_size, (rows, 25), generator=generator)
    weights = (torch.rand(rows, 24, generator=generator) > 0.3).float() * 1.5
    return TensorBatch(tokens[:, :-1], tokens[:, 1:], weights)


def gradients(model, loss):
    model.zero_grad()
    loss.total.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def assert_same(left, right, **tolerances):
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], **tolerances, msg=lambda m, n=name: f"{n}: {m}")


def by_the_book(logits, targets, weights, label_smoothing=0.0, z_loss=0.0):
    """The docstring's formula, term by term, in float64."""
    logits = logits.double()
    Z = logits.exp().sum(-1)
    p = logits.exp() / Z.unsqueeze(-1)
    hard = -p.gather(-1, targets.unsqueeze(-1)).squeeze(-1).log()
    losses = (1 - label_smoothing) * hard + label_smoothing * -p.log().mean(-1) + z_loss * Z.log() ** 2
    return (losses * weights).sum()


@pytest.mark.parametrize("options", OPTIONS)
def test_cross_entropy_is_its_formula(options):
    batch = random_batch()
    logits = (3 * torch.randn(4, 24, 61)).requires_grad_()
    total, weight = cross_entropy(logits, batch.targets, batch.weights, **options)
    expected = by_the_book(logits, batch.targets, batch.weights, **options)
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    assert weight == batch.weights.sum()
    (ours,), (theirs,) = torch.autograd.grad(total, logits), torch.autograd.grad(expected, logits)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("num_chunks", [1, 3, 7, 1000])
def test_chunks_change_neither_the_loss_nor_a_gradient(num_chunks, options):
    """Saving memory would train another model."""
    batch = random_batch()
    inputs = [torch.randn(4, 24, 16), torch.randn(61, 16), torch.randn(61)]
    whole, parts = ([x.clone().requires_grad_() for x in inputs] for _ in range(2))
    rest = (batch.targets, batch.weights)
    expected = cross_entropy(F.linear(*whole), *rest, **options)
    found = chunked_cross_entropy(*parts[:2], *rest, num_chunks=num_chunks, bias_V=parts[2], **options)
    assert found.total.item() == pytest.approx(expected.total.item(), rel=1e-6)
    assert found.weight == expected.weight
    # Not all upstream gradients are one.
    (expected.total * 0.25).backward()
    (found.total * 0.25).backward()
    for ours, theirs in zip(parts, whole, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=2e-6, rtol=1e-5)


def test_chunks_leave_frozen_parts_alone_and_work_without_gradients():
    batch = random_batch()
    hidden, head = torch.randn(4, 24, 16), torch.randn(61, 16, requires_grad=True)
    expected = cross_entropy(F.linear(hidden, head), batch.targets, batch.weights).total
    loss = chunked_cross_entropy(hidden, head, batch.targets, batch.weights, num_chunks=3).total
    loss.backward()
    torch.testing.assert_close(head.grad, torch.autograd.grad(expected, head)[0], atol=1e-5, rtol=1e-5)
    assert hidden.grad is None
    with torch.no_grad():
        loss = chunked_cross_entropy(hidden, head, batch.targets, batch.weights, num_chunks=3).total
    assert not loss.requires_grad
    torch.testing.assert_close(loss, expected.detach())
    assert not chunked_cross_entropy(
        hidden, head.detach(), batch.targets, batch.weights, num_chunks=3
    ).total.requires_grad


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_model_learns_the_same_in_chunks(family):
    """The head's gradient must reach the embedding that it is tied to."""
    model, batch = tiny(family=family), random_batch()
    whole, parts = (CausalLM(n).loss(model, batch) for n in (1, 5))
    torch.testing.assert_close(parts.total, whole.total, rtol=1e-6, atol=0)
    assert_same(gradients(model, parts), gradients(model, whole), atol=1e-5, rtol=1e-5)


def test_under_autocast_chunks_round_no_worse():
    """The head's gradient is summed over the chunks in float32, not in bfloat16."""
    model, batch = tiny(family="llama"), random_batch()
    exact = gradients(model, CausalLM().loss(model, batch))["head.weight"]
    errors = []
    for num_chunks in (1, 5):
        with torch.autocast("cpu", torch.bfloat16):
            loss = CausalLM(num_chunks).loss(model, batch)
        errors.append((gradients(model, loss)["head.weight"] - exact).norm() / exact.norm())
    assert 0 < errors[1] < 1.2 * errors[0] < 0.02


@pytest.mark.parametrize("num_chunks", [4, 16])
def test_memory_for_logits_goes_down_by_the_number_of_chunks(num_chunks):
    """The option would promise memory that it does not give."""
    N, D, V = 512, 8, 2000
    targets, weights = torch.randint(0, V, (1, N)), torch.ones(1, N)

    def peak(loss_of):
        hidden, head = torch.randn(1, N, D, requires_grad=True), torch.randn(V, D, requires_grad=True)
        with LiveTensors() as live:
            loss_of(hidden, head).total.backward()
        return live.peak_bytes

    whole = peak(lambda hidden, head: cross_entropy(F.linear(hidden, head), targets, weights))
    parts = peak(
        lambda hidden, head: chunked_cross_entropy(hidden, head, targets, weights, num_chunks=num_chunks)
    )
    held_gradients = 3 * 4 * (N + V) * D
    assert whole > 3 * 4 * N * V
    assert parts < whole / num_chunks + held_gradients


def test_the_default_is_bit_for_bit_plain_cross_entropy():
    """Runs that went on before there were options would part from their own history."""
    model, batch = tiny(), random_batch()
    losses = F.cross_entropy(model(batch.tokens).flatten(0, 1), batch.targets.flatten(), reduction="none")
    expected = LossSum((losses * batch.weights.flatten()).sum(), batch.weights.sum())
    found = CausalLM().loss(model, batch)
    assert torch.equal(found.total, expected.total)
    assert torch.equal(found.weight, expected.weight)
    assert_same(gradients(model, found), gradients(model, expected), atol=0, rtol=0)


@pytest.mark.parametrize(
    "objective",
    [
        CausalLM(),
        CausalLM(3, label_smoothing=0.1, z_loss=1e-3),
        CausalLM(2, balance_loss=0.1, router_z_loss=0.01),
    ],
)
def test_micro_batches_and_padding_do_not_change_the_gradient(objective):
    """The gradient would depend on how many machines there are."""
    changes = {"family": "mixtral", "num_experts": 4, "expert_width": 32} if objective.balance_loss else {}
    model, batch = tiny(**changes), random_batch(6)
    whole = objective.loss(model, batch)
    expected = gradients(model, whole)
    found, totals = {}, [0.0, 0.0]
    for rows in ((0, 1), (1, 4), (4, 6)):
        part = TensorBatch(*(x[slice(*rows)] for x in batch[:3]))
        # And a row of padding.
        part = TensorBatch(*(torch.cat([x, torch.zeros_like(x[:1])]) for x in part[:3]))
        loss = objective.loss(model, part)
        for name, grad in gradients(model, loss).items():
            found[name] = found.get(name, 0) + grad
        totals = [totals[0] + loss.total.item(), totals[1] + loss.weight.item()]
    assert totals == [pytest.approx(whole.total.item(), rel=1e-5), pytest.approx(whole.weight.item())]
    assert_same(found, expected, atol=1e-4, rtol=1e-4)


def test_validation_is_given_the_plain_loss():
    """Validation losses of runs with other regularisers could not be compared."""
    batch = random_batch()
    model = tiny(family="mixtral", num_experts=4, expert_width=32)
    objective = CausalLM(2, label_smoothing=0.1, z_loss=1e-2, balance_loss=0.1)
    training = objective.loss(model, batch).total
    model.eval()
    torch.testing.assert_close(objective.loss(model, batch).total, CausalLM().loss(model, batch).total)
    assert (training - CausalLM().loss(model, batch).total).abs() > 1


def test_parts_with_weights_of_their_own_become_one_sum():
    """A step divides once; each part must come out as its own mean over the whole step."""
    sums = {
        "tokens": [(6.0, 3.0), (10.0, 5.0)],
        "pairs": [(4.0, 2.0), (1.0, 2.0)],
        "nothing": [(0.0, 0.0)] * 2,
    }
    step_weights = {name: sum(w for _, w in values) for name, values in sums.items()}
    losses = [
        combine({n: LossSum(*map(torch.tensor, v[i])) for n, v in sums.items()}, step_weights) for i in (0, 1)
    ]
    mean = sum(loss.total for loss in losses) / sum(loss.weight for loss in losses)
    assert mean.item() == pytest.approx(16 / 8 + 5 / 4)
