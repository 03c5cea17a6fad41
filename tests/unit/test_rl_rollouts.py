"""Rollouts of a real small model: stored, scored by the trainer, learned from, and every invariant broken
once."""

import dataclasses
import math

import pytest
import torch

from models.config import ModelConfig
from models.families import build
from models.generation import Engine, Request
from models.initialization import initialize
from seedbed.errors import ConfigError, DataError
from training.optimizers import make_optimizer
from training.rl import invariants
from training.rl.invariants import Bands, Broken
from training.rl.losses import LOSSES
from training.rl.objectives import (
    PolicyBatch,
    PolicyObjective,
    ValueBatch,
    ValueObjective,
    token_log_probs,
    token_values,
)
from training.rl.outcomes import Reward
from training.rl.rollouts import Rollout, read_rollouts, tensors_of, write_rollouts
from training.sections import OptimizerConfig

SIZES = {
    "family": "llama", "num_layers": 2, "width": 32, "num_heads": 4, "mlp_width": 64, "context": 24,
    "vocab_size": 30, "tie_embeddings": True,
}  # fmt: skip
END = 0


def model_of(seed=0, **changes):
    config = ModelConfig(**SIZES, **changes)
    model = build(config)
    initialize(model, config, seed)
    return model.eval()


@pytest.fixture(scope="module")
def policy():
    return model_of()


@pytest.fixture(scope="module")
def rollouts(policy):
    """Answers of unequal lengths to prompts of unequal lengths."""
    engine = Engine(policy, num_slots=8)
    prompts = [[3], [4, 5, 6], [7, 8], [9] * 6, [10, 11, 12]]
    requests = [Request(prompt, 3 + n, seed=n, stop_ids=frozenset({END})) for n, prompt in enumerate(prompts)]
    hash_ = engine.weights_hash()
    return [
        Rollout.of(n, prompts[n], completion, hash_) for n, completion in enumerate(engine.complete(requests))
    ]


def test_a_file_of_rollouts_comes_back_or_is_refused(rollouts, tmp_path):
    """Played again, it has to be what was written, to the bit."""
    scored = [dataclasses.replace(one, reward=Reward({"a": 0.1, "b": math.pi})) for one in rollouts]
    scored[1] = dataclasses.replace(scored[1], reward=Reward(failure="timeout", detail="late"))
    write_rollouts(tmp_path / "rollouts.jsonl", scored)
    assert read_rollouts(tmp_path / "rollouts.jsonl") == scored
    lines = (tmp_path / "rollouts.jsonl").read_bytes().splitlines(keepends=True)
    for name, content in {
        "cut": b"".join(lines[:-1]),
        "short": b"".join([*lines[:2], *lines[3:]]),
        "changed": b"".join(lines).replace(b'"number":1', b'"number":7'),
        "empty": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=r"rollouts|digest"):
            read_rollouts(tmp_path / name)


def test_the_trainer_finds_the_generators_log_probabilities(policy, rollouts):
    """Right-padded rows, masks that are one column before their token: the commonest fault of such code."""
    for padding in (END, 29):
        batch = tensors_of(rollouts, padding)
        with torch.no_grad():
            found, _ = token_log_probs(policy, batch.tokens, batch.mask)
        assert invariants.check_generator(batch, found, Bands()) < 1e-5
        for row, one in enumerate(rollouts):
            assert batch.tokens[row, 1:][batch.mask[row]].tolist() == list(one.answer)


def batch_of(policy, rollouts, seed=1):
    padded = tensors_of(rollouts, END)
    with torch.no_grad():
        old, _ = token_log_probs(policy, padded.tokens, padded.mask)
    random = torch.Generator().manual_seed(seed)
    advantages = torch.randn(padded.mask.shape, generator=random)
    zeros = torch.zeros_like(old)
    return PolicyBatch(padded.tokens, padded.mask, old, advantages, zeros, torch.ones_like(old))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("mean", ["tokens", "answers"])
def test_padding_and_company_do_not_show_in_a_gradient(name, mean, policy, rollouts):
    """A batch is its answers one by one, whatever else stands beside them."""
    model = model_of(seed=3).train()
    objective = PolicyObjective(name, mean=mean, entropy=0.01, kl=0.1)
    batch = batch_of(policy, rollouts)

    def gradient(batches):
        model.zero_grad()
        weight = 0.0
        for one in batches:
            found = objective.loss(model, one)
            found.total.backward()
            weight += found.weight.item()
        return torch.cat([p.grad.flatten() for p in model.parameters()]) / weight

    together = gradient([batch])
    alone = []
    for row, one in enumerate(rollouts):
        end = len(one.prompt) + len(one.answer)
        alone.append(
            PolicyBatch(batch.tokens[row : row + 1, :end], *(x[row : row + 1, : end - 1] for x in batch[1:]))
        )
    torch.testing.assert_close(gradient(alone), together, atol=1e-6, rtol=1e-4)


def test_an_update_makes_good_tokens_likelier(policy, rollouts):
    model = model_of()
    batch = batch_of(policy, rollouts)
    batch = batch._replace(advantages=torch.where(batch.mask, 1.0, 0.0))
    PolicyObjective().loss(model, batch).total.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.01 * parameter.grad
        new, _ = token_log_probs(model, batch.tokens, batch.mask)
    assert (new - batch.old)[batch.mask].mean() > 0


def test_objectives_that_are_none_are_refused():
    """A sum in place of a mean, or a penalty that penalises nothing, would go unseen."""
    for settings in ({"name": "pp0"}, {"mean": "colums"}, {"mean": "constant"}, {"kl_estimator": "k1"}):
        with pytest.raises(ConfigError):
            PolicyObjective(**settings)


def test_values_are_of_what_was_read_before_a_token(rollouts):
    critic = model_of(head="reward")
    padded = tensors_of(rollouts, END)
    with torch.no_grad():
        values = token_values(critic, padded.tokens)
        for row, one in enumerate(rollouts):
            for place in range(len(one.answer)):
                read = torch.tensor([[*one.prompt, *one.answer[:place]]])
                at = len(one.prompt) - 1 + place
                assert padded.mask[row, at]
                torch.testing.assert_close(values[row, at], critic(read)[0], atol=1e-5, rtol=1e-4)
    batch = ValueBatch(padded.tokens, padded.mask, values, values + 1)
    found = ValueObjective().loss(critic, batch)
    assert (found.total / found.weight).item() == pytest.approx(0.5, abs=1e-5)


def test_every_broken_invariant_has_a_name(policy, rollouts):
    """Each of these runs on for weeks elsewhere."""
    good, rest = rollouts[0], rollouts[1:]

    def changed(**changes):
        return [dataclasses.replace(good, **changes), *rest]

    invariants.check_rollouts(rollouts, 24, 30)
    for name, broken in (
        ("mask", changed(answer=(), log_probs=())),
        ("tokens", changed(log_probs=good.log_probs[1:])),
        ("tokens", changed(answer=(31,), log_probs=(-1.0,))),
        ("finite", changed(answer=(3,), log_probs=(math.nan,))),
        ("finite", changed(answer=(3,), log_probs=(-math.inf,))),
        ("context", changed(prompt=(3,) * 30)),
    ):
        with pytest.raises(Broken, match=f"invariant {name}"):
            invariants.check_rollouts(broken, 24, 30)

    invariants.check_policy(rollouts, good.policy)
    with pytest.raises(Broken, match="invariant weights: 1 of 5 answers"):
        invariants.check_policy(changed(policy="another"), good.policy)

    batch = batch_of(policy, rollouts)
    padded = tensors_of(rollouts, END)
    for shift in (0.1, math.nan):
        with pytest.raises(Broken, match="invariant generator"):
            invariants.check_generator(padded, batch.old + shift, Bands())
    one_row = batch.old.clone()
    one_row[2] += 0.2
    with pytest.raises(Broken, match="an answer's log-probabilities"):
        invariants.check_generator(padded, one_row, Bands(generator=1.0))
    invariants.check_first_ratio(batch.old, batch.old, batch.mask, Bands())
    with pytest.raises(Broken, match="invariant ratio"):
        invariants.check_first_ratio(batch.old + 1e-3, batch.old, batch.mask, Bands())

    kl = torch.full(batch.old.shape, 1e-3)
    invariants.check_reference(0 * kl, batch.mask, Bands(), is_first=True, is_initial=True)
    invariants.check_reference(kl, batch.mask, Bands(), is_first=False, is_initial=True)
    invariants.check_reference(kl, batch.mask, Bands(), is_first=True, is_initial=False)
    with pytest.raises(Broken, match="invariant reference"):
        invariants.check_reference(kl, batch.mask, Bands(), is_first=True, is_initial=True)
    for far in (kl * 1e6, kl * -1e6, kl * -math.inf, kl * math.nan):
        with pytest.raises(Broken, match="invariant kl"):
            invariants.check_reference(far, batch.mask, Bands(), is_first=False, is_initial=True)

    invariants.check_finite("advantages", batch.advantages, batch.mask)
    with pytest.raises(Broken, match="advantages hold what is no number"):
        invariants.check_finite("advantages", batch.advantages / 0, batch.mask)


def moved_by(eps_hat):
    """(approximate divergence, share of clipped tokens) after two epochs of four steps on one saved batch."""
    sizes = SIZES | {"width": 64, "mlp_width": 128, "context": 48, "vocab_size": 256}
    config = ModelConfig(**sizes)
    model = build(config)
    initialize(model, config, 0)
    random = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, 256, (64, 33), generator=random)
    mask = torch.zeros(64, 32, dtype=torch.bool)
    mask[:, 8:] = True
    with torch.no_grad():
        old, _ = token_log_probs(model, tokens, mask)
    # A mean over so few weights has gradients a thousand times those of a large model.
    advantages = torch.randn(64, 32, generator=random) * 1e-3
    batch = PolicyBatch(tokens, mask, old, advantages, old, torch.ones(64, 32))
    adam = OptimizerConfig(name="adam", eps=1e-5, eps_hat=eps_hat, lr=2e-3, weight_decay=0.0)
    optimizer = make_optimizer(list(model.named_parameters()), adam)
    objective = PolicyObjective("ppo")
    for first in (0, 16, 32, 48) * 2:
        part = PolicyBatch(*(values[first : first + 16] for values in batch))
        total, weight = objective.loss(model, part)
        (total / weight).backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        found = objective.scores(model, batch)
    return [float(found[name].total / found[name].weight) for name in ("approximate_kl", "clipped")]


def test_where_adam_adds_epsilon_decides_how_far_the_first_updates_go():
    """A run would not be the published one, whose epsilon stood beside the root before it was corrected
    (TensorFlow 1; Huang et al. 2024): early updates are several times as far with the other form, where
    gradients are as small as epsilon."""
    (kl, clipped), (kl_hat, clipped_hat) = moved_by(eps_hat=False), moved_by(eps_hat=True)
    assert kl > 3 * kl_hat > 0
    assert clipped > 3 * clipped_hat > 0
