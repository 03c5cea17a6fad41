"""Mixtures of experts: who is chosen, what is computed, and the losses that keep the choice even."""

import pytest
import torch
import torch.nn.functional as F

from models.config import ModelConfig
from models.experts import MixtureOfExperts
from models.initialization import initialize
from models.routing import Routing, balance_loss, choose_experts, z_loss
from models.transformer import Transformer

TINY = {"num_layers": 2, "width": 16, "num_heads": 2, "context": 16, "vocab_size": 31, "expert_width": 8}


def model_of(**changes: object) -> Transformer:
    config = ModelConfig(family="mixtral", **{**TINY, "num_experts": 4, **changes})
    model = Transformer(config)
    initialize(model, config, seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(20 if parameter.ndim > 1 else 1)
    return model


def tokens() -> torch.Tensor:
    return torch.randint(0, 31, (3, 12), generator=torch.Generator().manual_seed(0))


def test_no_token_is_dropped_and_each_is_mixed_by_its_own_weights():
    """Some tokens would pass a layer without being touched."""
    moe = model_of(num_shared_experts=1).blocks["0"].mlp
    assert isinstance(moe, MixtureOfExperts)
    # All tokens alike: every one goes to the same two experts.
    x = torch.randn(16).expand(2, 5, 16)
    got = moe(x)
    probabilities = moe.router(x[0, 0]).softmax(-1)
    best = probabilities.topk(2)
    expected = moe.shared(x[0, 0])
    for weight, expert in zip(best.values / best.values.sum(), best.indices, strict=True):
        hidden = F.silu(moe.experts.gate[expert] @ x[0, 0]) * (moe.experts.up[expert] @ x[0, 0])
        expected = expected + weight * (moe.experts.down[expert] @ hidden)
    torch.testing.assert_close(got, expected.expand(2, 5, 16), atol=1e-5, rtol=1e-5)


def test_an_expert_that_nobody_took_has_a_gradient_of_zeros():
    """Ranks would reduce different sets of gradients, and wait for each other for ever."""
    moe = model_of().blocks["0"].mlp
    moe(torch.randn(16).expand(1, 3, 16)).sum().backward()
    taken = moe.experts.up.grad.abs().sum((1, 2)) > 0
    assert taken.sum() == 2


def test_groups_limit_where_experts_are_taken_from():
    """A token's experts would lie on more devices than were promised."""
    config = ModelConfig(
        family="mixtral", **TINY, num_experts=8, num_expert_groups=4, groups_per_token=2, experts_per_token=3
    )
    logits = torch.randn(5, 7, 8)
    chosen, weights = choose_experts(logits, config)
    groups = chosen // 2
    assert all(len(row.unique()) <= 2 for row in groups.flatten(0, 1))
    assert any(
        set(a.tolist()) != set(b.tolist())
        for a, b in zip(chosen.flatten(0, 1), logits.topk(3).indices.flatten(0, 1), strict=True)
    ), "the limit never mattered"
    torch.testing.assert_close(weights.sum(-1), torch.ones(5, 7))


def test_the_balance_loss_is_the_references():
    """The coefficient that a paper gives would mean something else here."""
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    logits = torch.randn(2, 9, 4)
    chosen = logits.topk(2).indices
    whole = balance_loss(logits.flatten(0, 1)[None], chosen.flatten(0, 1)[None])
    torch.testing.assert_close(whole[0], load_balancing_loss_func((logits.flatten(0, 1),), 4, 2))
    weights = torch.tensor([[1.0] * 9, [1.0] * 4 + [0.0] * 5])
    for row, valid in enumerate((9, 4)):
        alone = load_balancing_loss_func((logits[row, :valid],), 4, 2)
        torch.testing.assert_close(balance_loss(logits, chosen, weights)[row], alone)


def test_even_routing_is_the_least_that_counts_allow():
    even = torch.zeros(1, 4, 4)
    assert balance_loss(even, torch.tensor([[[0, 1], [2, 3], [0, 1], [2, 3]]])).item() == pytest.approx(2)
    skewed = torch.tensor([3.0, 2.0, 0.0, 0.0]).expand(1, 4, 4)
    assert balance_loss(skewed, skewed.topk(2).indices).item() > 3


def test_the_z_loss_is_the_square_of_the_log_of_the_partition():
    logits = torch.randn(2, 5, 4, dtype=torch.float64)
    expected = logits.exp().sum(-1).log().square()
    torch.testing.assert_close(z_loss(logits), expected.mean(1))
    weights = torch.tensor([[1.0, 1, 0, 0, 0], [0.0] * 5], dtype=torch.float64)
    torch.testing.assert_close(
        z_loss(logits, weights), torch.stack([expected[0, :2].mean(), expected[0, 0] * 0])
    )


def test_routing_tells_every_layer_and_changes_nothing():
    """Watching the routers would change what they do."""
    model = model_of(num_dense_layers=1, num_layers=3)
    routing = Routing()
    assert torch.equal(model(tokens(), routing=routing), model(tokens()))
    assert len(routing.logits) == 2
    shares = routing.shares_LE()
    torch.testing.assert_close(shares.sum(-1), torch.full((2,), 2.0))
    per_layer = [
        balance_loss(x, c) for x, c in zip(routing.logits.values(), routing.chosen.values(), strict=True)
    ]
    torch.testing.assert_close(routing.balance_loss_B(), torch.stack(per_layer).mean(0))
    assert routing.z_loss_B().shape == (3,)


def test_a_sequences_loss_does_not_depend_on_its_batch():
    """Gradients would change with the size of a micro-batch."""
    model = model_of()
    together, alone = Routing(), Routing()
    model(tokens(), routing=together)
    model(tokens()[1:2], routing=alone)
    torch.testing.assert_close(together.balance_loss_B()[1:2], alone.balance_loss_B(), atol=1e-5, rtol=0)


def test_against_global_shares_the_loss_is_a_sum_over_micro_batches():
    """Accumulation would not add up to the loss of the whole batch."""
    model = model_of()
    whole = Routing()
    model(tokens(), routing=whole)
    shares = whole.shares_LE().detach()
    parts = []
    for row in range(3):
        part = Routing()
        model(tokens()[row : row + 1], routing=part)
        parts.append(part.balance_loss_B(shares_LE=shares))
    got = torch.cat(parts).mean()
    # The shares of the whole batch against its mean probabilities: Switch's loss, layer by layer.
    flat = [
        balance_loss(x.flatten(0, 1)[None], c.flatten(0, 1)[None])
        for x, c in zip(whole.logits.values(), whole.chosen.values(), strict=True)
    ]
    torch.testing.assert_close(got, torch.cat(flat).mean(), atol=1e-5, rtol=0)


def test_the_balance_loss_evens_the_choice_out():
    """Its gradient would point nowhere, or the wrong way."""
    model = model_of(num_layers=1)
    optimizer = torch.optim.SGD(model.blocks["0"].mlp.router.parameters(), lr=1.0)
    losses = []
    for _ in range(40):
        routing = Routing()
        model(tokens(), routing=routing)
        loss = routing.balance_loss_B().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05


def test_recomputed_blocks_count_once():
    """Activation checkpointing would double the loss."""
    from torch.utils.checkpoint import checkpoint

    model = model_of(num_layers=1)
    block, routing = model.blocks["0"], Routing()
    x = model.embedding(tokens())
    out = checkpoint(block, x, None, None, None, routing, use_reentrant=False)
    loss = routing.balance_loss_B().sum() + out.sum()
    loss.backward()
    assert len(routing.logits) == 1
    recomputed = block.mlp.router.weight.grad.clone()
    model.zero_grad()
    plain = Routing()
    out = block(model.embedding(tokens()), None, None, None, plain)
    (plain.balance_loss_B().sum() + out.sum()).backward()
    torch.testing.assert_close(recomputed, block.mlp.router.weight.grad)
