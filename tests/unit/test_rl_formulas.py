"""Advantages, divergences and losses of reinforcement learning, each against loops in float64."""

import math

import numpy as np
import pytest
import torch

from training.rl import advantages, kl, losses
from training.rl.losses import LOSSES, ClipSettings

B, T = 5, 7
LENGTHS = (7, 1, 4, 6, 3)
MASK = torch.tensor([[t < length for t in range(T)] for length in LENGTHS])


def drawn(seed, *shape, scale=1.0):
    return torch.randn(*(shape or (B, T)), generator=torch.Generator().manual_seed(seed)) * scale


def close(found, expected):
    torch.testing.assert_close(found.double(), torch.as_tensor(expected).double(), rtol=1e-6, atol=1e-6)


def test_estimators_of_the_divergence():
    """Against the divergence itself, as means over many samples; k2 is biased, and close for near
    policies."""
    random = np.random.default_rng(0)
    policy = np.array([0.5, 0.2, 0.3])
    reference = np.array([0.4, 0.3, 0.3])
    true = float((policy * np.log(policy / reference)).sum())
    samples = random.choice(3, 400_000, p=policy)
    x = torch.tensor(np.log(policy / reference)[samples])
    for name, tolerance in {"k1": 1e-3, "k2": 3e-3, "k3": 1e-3}.items():
        assert abs(kl.ESTIMATORS[name](x).mean().item() - true) < tolerance, name
    assert kl.k3(x).min() >= 0
    close(kl.k3(torch.tensor([0.3])), [math.exp(-0.3) - 1 + 0.3])
    close(kl.k2(torch.tensor([0.3])), [0.045])


def test_the_coefficient_follows_the_sum_over_an_answer():
    """Golden numbers of the published rule: within the bounds, at both of them, and without a target."""
    controller = kl.KlController(0.15, target=6.0, horizon=10_000)
    controller.update(6.6, 512)
    assert controller.coefficient == pytest.approx(0.15 * (1 + 0.1 * 512 / 10_000), rel=1e-12)
    before = controller.coefficient
    controller.update(60.0, 512)
    assert controller.coefficient == pytest.approx(before * (1 + 0.2 * 512 / 10_000), rel=1e-12)
    again = kl.KlController(1.0, target=6.0)
    again.load_state(controller.state())
    again.update(0.0, 10_000)
    assert again.coefficient == pytest.approx(controller.coefficient * 0.8, rel=1e-12)
    fixed = kl.KlController(0.05)
    fixed.update(100.0, 10_000)
    assert fixed.coefficient == 0.05


@pytest.mark.parametrize(("discount", "smoothing"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.99, 0.0)])
def test_generalized_advantages(discount, smoothing):
    """The definition: discounted sums of one-step errors, answer by answer."""
    rewards, values = drawn(0), drawn(1)
    found, returns = advantages.gae(rewards, values, MASK, discount, smoothing)
    for row, length in enumerate(LENGTHS):
        r, v = rewards[row, :length].double().tolist(), [*values[row, :length].double().tolist(), 0.0]
        errors = [r[t] + discount * v[t + 1] - v[t] for t in range(length)]
        for t in range(length):
            expected = sum((discount * smoothing) ** (s - t) * errors[s] for s in range(t, length))
            close(found[row, t], expected)
            close(returns[row, t], expected + v[t])
    assert not found[~MASK].any()
    assert not returns[~MASK].any()


def test_what_padding_holds_changes_nothing():
    """Garbage after an answer's end would reach its advantages."""
    rewards, values = drawn(0), drawn(1)
    expected = advantages.gae(rewards, values, MASK)
    rewards, values = rewards.masked_fill(~MASK, 1e6), values.masked_fill(~MASK, math.nan)
    for found, one in zip(advantages.gae(rewards, values, MASK), expected, strict=True):
        assert torch.equal(found, one)


def test_rewards_to_go_are_sums_of_what_follows():
    rewards = drawn(0)
    found = advantages.rewards_to_go(rewards, MASK, gamma=0.9)
    for row, length in enumerate(LENGTHS):
        for t in range(length):
            close(found[row, t], sum(0.9 ** (s - t) * rewards[row, s].item() for s in range(t, length)))


def test_a_score_comes_at_the_last_token_and_divergence_at_each():
    """One column too far is a reward on padding."""
    divergence, scores = drawn(0), drawn(1, B)
    found = advantages.token_rewards(divergence, scores, MASK, 0.1)
    for row, length in enumerate(LENGTHS):
        expected = [-0.1 * divergence[row, t].item() * (t < length) for t in range(T)]
        expected[length - 1] += scores[row].item()
        close(found[row], expected)


def test_whitening_is_of_the_whole_batch_on_any_number_of_ranks():
    """Whitened rank by rank, an advantage would depend on how many ranks there are."""
    values = drawn(0) * 3 + 1
    chosen = values[MASK].double()
    mean, variance = chosen.mean().item(), chosen.var(unbiased=False).item()
    expected = torch.where(MASK, (values.double() - mean) / math.sqrt(variance + 1e-8), 0.0)
    close(advantages.whiten(values, MASK, advantages.moments(values, MASK)), expected)
    kept = advantages.whiten(values, MASK, advantages.moments(values, MASK), keep_mean=True)
    close(kept[MASK], expected[MASK] + mean)

    parts = [slice(0, 2), slice(2, B)]
    sums = [sum(values[part].double()[MASK[part]].sum().item() for part in parts)]
    squares = sum((values[part].double()[MASK[part]] - mean).square().sum().item() for part in parts)
    answers = iter([[float(MASK.sum()), sums[0]], [squares]])
    of = advantages.moments(values[parts[0]], MASK[parts[0]], lambda _: next(answers))
    close(advantages.whiten(values[parts[0]], MASK[parts[0]], of), expected[parts[0]])
    assert advantages.moments(values, torch.zeros_like(MASK)).number == 0


def test_advantages_within_a_prompts_answers():
    """RLOO, GRPO, Dr. GRPO, and which prompts teach nothing."""
    scores = torch.tensor([[1.0, 0.0, 0.0, 3.0], [2.0, 2.0, 2.0, 2.0]])
    close(advantages.leave_one_out(scores)[0], [1 - 1.0, 0 - 4 / 3, 0 - 4 / 3, 3 - 1 / 3])
    deviation = math.sqrt(((1 - 1) ** 2 + 1 + 1 + 4) / 3)
    expected = [(s - 1) / (deviation + 1e-6) for s in (1, 0, 0, 3)]
    close(advantages.group_relative(scores)[0], expected)
    close(advantages.group_relative(scores, divide=False)[0], [0, -1, -1, 2])
    assert not advantages.group_relative(scores)[1].any()
    assert advantages.has_spread(scores).tolist() == [True, False]
    for compared in (advantages.leave_one_out, advantages.group_relative):
        with pytest.raises(ValueError, match="one answer"):
            compared(scores[:, :1])


def test_the_penalty_of_long_answers_is_a_ramp():
    found = advantages.overlong_penalty(torch.tensor([10, 80, 90, 100, 130]), limit=100, cache=20)
    close(found, [0.0, 0.0, -0.5, -1.0, -1.0])


def token_loss(name, new, old, advantage, moved_mean, clip):
    """One token's loss, as a number; `moved_mean` is the answer's mean of new - old."""
    ratio = math.exp(moved_mean if name == "gspo" else new - old)
    bounded = min(max(ratio, 1 - clip.low), 1 + clip.high)
    if name == "reinforce":
        return -advantage * new
    if name == "cispo":
        return -bounded * advantage * new
    loss = max(-advantage * ratio, -advantage * bounded)
    return min(loss, -clip.dual * advantage) if clip.dual and advantage < 0 else loss


@pytest.mark.parametrize("clip", [ClipSettings(), ClipSettings(0.2, 0.28), ClipSettings(0.1, 0.3, dual=1.5)])
@pytest.mark.parametrize("name", LOSSES)
def test_policy_losses_and_their_gradients(name, clip):
    """Gradients by central differences of the scalar formula; CISPO's ratio is a constant in them."""
    old, advantage = -drawn(0).abs(), drawn(1)
    new = (old + drawn(2, scale=0.4)).requires_grad_()
    found = LOSSES[name](new, old, advantage, MASK, clip)
    total = losses.over_tokens(found.losses, MASK)
    total.total.backward()
    h = 1e-6
    for row, length in enumerate(LENGTHS):
        n, o = new[row, :length].detach().double(), old[row, :length].double()

        def whole(n, o=o, a=advantage[row].double().tolist(), length=length, kept=None):
            """The answer's loss; `kept` holds CISPO's ratios where they were."""
            moved = (n - o).mean().item()
            return sum(
                token_loss(name, n[t].item(), o[t].item(), a[t], moved, clip)
                if kept is None
                else -kept[t] * a[t] * n[t].item()
                for t in range(length)
            )

        close(found.losses[row, :length].sum().detach(), whole(n))
        kept = None
        if name == "cispo":
            kept = (n - o).exp().clamp(1 - clip.low, 1 + clip.high).tolist()
        for t in range(length):
            step = torch.zeros_like(n)
            step[t] = h
            slope = (whole(n + step, kept=kept) - whole(n - step, kept=kept)) / (2 * h)
            torch.testing.assert_close(new.grad[row, t].item(), slope, rtol=1e-4, atol=1e-5)
    assert not new.grad[~MASK].any()
    assert total.weight.item() == sum(LENGTHS)


def test_before_the_first_update_the_ratio_is_one_and_nothing_is_clipped():
    """The gradient is then that of the policy gradient theorem, for every loss."""
    old, advantage = -drawn(0).abs(), drawn(1)
    expected = torch.where(MASK, -advantage, 0.0)
    for name in ("reinforce", "ppo", "cispo"):
        new = old.clone().requires_grad_()
        found = LOSSES[name](new, old, advantage, MASK, ClipSettings(dual=3.0))
        assert not found.is_clipped.any()
        losses.over_tokens(found.losses, MASK).total.backward()
        close(new.grad, expected)


def test_a_policy_that_ran_away_has_a_finite_loss():
    """exp of a difference of 1,000 nats is not a number to be clipped."""
    found = LOSSES["ppo"](
        torch.zeros(1, 1), torch.full((1, 1), -1000.0), -torch.ones(1, 1), MASK[:1, :1], ClipSettings()
    )
    assert found.losses.isfinite().all()


def test_value_losses():
    """The larger of the two squares; without a clip, the plain one."""
    values, old, returns = drawn(0), drawn(1), drawn(2)
    found = losses.value_losses(values, old, returns, 0.2)
    for v, o, r, loss in zip(
        *(x.double().flatten().tolist() for x in (values, old, returns, found.losses)), strict=True
    ):
        near = min(max(v, o - 0.2), o + 0.2)
        assert loss == pytest.approx(max((v - r) ** 2, (near - r) ** 2) / 2, rel=1e-5, abs=1e-6)
    close(losses.value_losses(values, old, returns, None).losses, (values - returns).double().square() / 2)


def test_what_a_loss_is_averaged_over():
    """Tokens, answers, or columns: three published means, which differ as soon as lengths do."""
    values = drawn(0)
    rows = [values[row, :length].double() for row, length in enumerate(LENGTHS)]
    for found, expected in (
        (losses.over_tokens(values, MASK), torch.cat(rows).mean()),
        (losses.over_answers(values, MASK), torch.stack([row.mean() for row in rows]).mean()),
        (losses.over_constant(values, MASK, 16), torch.stack([row.sum() / 16 for row in rows]).mean()),
    ):
        close(found.total / found.weight, expected)


def test_entropy_and_importance():
    logs = drawn(0, 6, 4).log_softmax(-1)
    p = logs.double().exp()
    close(losses.entropy(logs), -(p * p.log()).sum(-1))
    trainer, generator = drawn(1), drawn(2)
    expected = (trainer - generator).double().exp().clamp(max=2.0)
    close(losses.importance(trainer, generator, 2.0), expected)
