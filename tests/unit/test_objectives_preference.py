"""Direct methods and reward models: losses and gradients of their papers' formulas, in float64 and by
hand."""

import math

import numpy as np
import pytest
import torch
from token_splits import write_examples

from data.examples.groups import GroupStream
from data.examples.table import ExampleTable
from models.bert.config import EncoderConfig
from models.config import ModelConfig
from models.families import build, initial_values
from models.heads import RewardModel
from seedbed.randomness import generator
from training.objectives.preference import (
    LOSSES,
    GroupTensors,
    Preference,
    PreferenceSettings,
    log_one_minus_exp,
)
from training.objectives.reward import RewardModeling, candidate_rewards
from training.reference import group_tensors

VOCABULARY = 40
SIZES = {"num_layers": 2, "width": 32, "num_heads": 4, "context": 24, "vocab_size": VOCABULARY}


def examples(folder, groups, **more):
    draws = generator(1, "examples")
    count = sum(groups)
    sizes = [(int(a), int(b)) for a, b in draws.integers(2, 9, size=(count, 2))]
    tokens = [draws.integers(1, VOCABULARY, size=a + b).tolist() for a, b in sizes]
    return ExampleTable(write_examples(folder, sizes, groups=groups, tokens=tokens, **more))


def model(config, scale=4.0):
    made = build(config).double()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            values = initial_values(name, 0, parameter.numel(), config, 0)
            parameter.copy_(torch.from_numpy(values).view(parameter.shape))
            if parameter.ndim > 1:
                parameter *= scale
    return made


def gradients(made, loss):
    made.zero_grad()
    loss.backward()
    return {
        name: p.grad.clone() if p.grad is not None else torch.zeros_like(p)
        for name, p in made.named_parameters()
    }


def assert_equal(ours, theirs):
    for name, gradient in theirs.items():
        torch.testing.assert_close(
            ours[name], gradient, atol=1e-6, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


def log_prob(made, tokens, begin):
    """log pi(y|x) and |y|, token by token."""
    log_probs = made(tokens[None])[0].log_softmax(-1)
    places = range(begin, len(tokens))
    return sum(log_probs[place - 1, tokens[place]] for place in places), len(places)


def by_the_book(name, own, settings):
    """The loss of one sample; `own` has (l, |y|, l_ref) of each candidate, `good`, and for KTO z."""
    b = settings.beta
    (lw, nw, rw), (ll, nl, rl) = own["answers"]
    if name == "dpo":
        h = (lw - rw) - (ll - rl)
        e = settings.label_smoothing
        return -(1 - e) * torch.log(torch.sigmoid(b * h)) - e * torch.log(torch.sigmoid(-b * h))
    if name == "ipo":
        return ((lw - rw) - (ll - rl) - 1 / (2 * b)) ** 2
    if name == "simpo":
        return -torch.log(torch.sigmoid(b * lw / nw - b * ll / nl - settings.margin))
    if name == "orpo":
        odds = [torch.exp(v) / (1 - torch.exp(v)) for v in (lw / nw, ll / nl)]
        return -lw / nw - b * torch.log(torch.sigmoid(torch.log(odds[0] / odds[1])))
    moved = lw - rw
    if own["good"]:
        return settings.desirable_weight * (1 - torch.sigmoid(b * (moved - own["z"])))
    return settings.undesirable_weight * (1 - torch.sigmoid(b * (own["z"] - moved)))


SETTINGS = PreferenceSettings(0.3, 0.1, 0.5, 1.2, 0.7)


@pytest.mark.parametrize("name", LOSSES)
def test_direct_methods_follow_their_papers(name, tmp_path):
    """A sign, a mean for a sum, or a reference of the other side, and a run would learn something else."""
    table = examples(tmp_path, [2] * 5)
    made, other = model(ModelConfig(**SIZES)), model(ModelConfig(**SIZES), scale=3.0)
    stream = GroupStream(table, 24, 0, mismatched=name == "kto")
    rows, reference = [], []
    for number in range(stream.num_samples):
        batch = stream.of([number])
        answers = []
        for k in range(2):
            ids = torch.from_numpy(batch.tokens[0, k, : batch.lengths[0, k]])
            begin = int(np.flatnonzero(batch.trained[0, k])[0])
            with torch.no_grad():
                before, _ = log_prob(other, ids, begin)
            answers.append((*log_prob(made, ids, begin), before.float().double()))
        rows.append({"answers": answers, "good": batch.ranks[0, 0] == 0})
        reference.append([float(before) for _, _, before in answers])
    if name == "kto":
        moved = torch.stack([row["answers"][1][0] - row["answers"][1][2] for row in rows])
        z = moved.mean().clamp(min=0).detach()
        rows = [{**row, "z": z} for row in rows]
    expected = sum(by_the_book(name, row, SETTINGS) for row in rows)
    stream.reference = np.array(reference, dtype=np.float32)
    batch = group_tensors(stream.of(range(stream.num_samples)))
    # Cross-entropy in float64 as well: what is compared is the formula.
    loss = in_double(lambda: Preference(name, SETTINGS).loss(made, batch))
    assert loss.weight.item() == stream.num_samples
    assert loss.total.item() == pytest.approx(expected.item(), abs=1e-6)
    assert_equal(gradients(made, loss.total), gradients(made, expected))


def in_double(compute):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        return compute()


def test_a_policy_that_has_not_moved_is_indifferent(tmp_path):
    """At step 0 the loss is log 2, whatever the lengths and the padding."""
    stream = GroupStream(examples(tmp_path, [2] * 6), 24, 0)
    made = model(ModelConfig(**SIZES)).float()
    alone = [group_tensors(stream.of([n])) for n in range(6)]
    from training.objectives.preference import answer_log_probs

    with torch.no_grad():
        stream.reference = torch.cat([answer_log_probs(made, one)[0] for one in alone]).numpy()
        loss = Preference("dpo").loss(made, group_tensors(stream.of(range(6))))
        scores = Preference("dpo").scores(made, group_tensors(stream.of(range(6))))
    assert loss.total.item() / 6 == pytest.approx(math.log(2), abs=1e-6)
    assert scores["preferred"].total.item() == pytest.approx(0, abs=1e-4)


def test_log_one_minus_exp_is_exact_at_both_ends():
    values = torch.tensor([-1e-12, -1e-6, -0.5, -0.8, -40.0, -500.0], dtype=torch.float64)
    expected = [math.log(-math.expm1(v)) for v in values.tolist()]
    torch.testing.assert_close(log_one_minus_exp(values), torch.tensor(expected, dtype=torch.float64))
    assert math.isfinite(log_one_minus_exp(torch.zeros(1)).item())


def reward_by_the_book(rewards, ranks, margin, c, tau):
    """The mean over the pairs of one prompt."""
    terms = [
        -torch.log(torch.sigmoid((rewards[i] - rewards[j] - margin) / tau))
        + c * (rewards[i] + rewards[j]) ** 2
        for i in range(len(ranks))
        for j in range(len(ranks))
        if ranks[i] < ranks[j]
    ]
    return sum(terms) / len(terms)


@pytest.mark.parametrize(
    ("groups", "objective", "tau"),
    [
        ([2, 2, 2], RewardModeling(), 1.0),
        ([2, 2, 2], RewardModeling(use_margin=True), 1.0),
        ([4, 2, 3], RewardModeling(), 1.0),
        ([4, 2, 3], RewardModeling(centering=0.05, learn_temperature=True), 1.7),
    ],
)
@pytest.mark.parametrize("family", ["llama", "bert"])
def test_reward_models_follow_bradley_and_terry(family, groups, objective, tau, tmp_path):
    """With margins, several answers to a prompt, centering and a temperature: by hand and in float64."""
    margins = [0.5, 1.0, 0.25] if objective.use_margin and set(groups) == {2} else []
    table = examples(tmp_path, groups, margins=margins)
    if family == "bert":
        if objective.learn_temperature:
            tau = 1.0
        extra = {"head": "reward", "dropout": 0.0, "attention_dropout": 0.0, "head_dropout": 0.0}
        made = model(EncoderConfig(**SIZES, **extra))
    else:
        made = model(ModelConfig(family=family, head="reward", **SIZES))
        with torch.no_grad():
            made.reward.log_temperature.fill_(math.log(tau))
    stream = GroupStream(table, 24, 0)
    expected = torch.zeros((), dtype=torch.float64)
    for number, unit in enumerate(stream.units):
        alone = [made(torch.from_numpy(table.tokens(s))[None])[0] for s in unit]
        temperature = made.reward.log_temperature.exp()[0] if family != "bert" else 1.0
        margin = margins[number] if margins else 0.0
        expected = expected + reward_by_the_book(
            alone, table.ranks[list(unit)], margin, objective.centering, temperature
        )
    made.train()
    batch = group_tensors(stream.of(range(stream.num_samples)))
    loss = in_double(lambda: objective.loss(made, batch))
    assert loss.total.item() == pytest.approx(expected.item(), abs=1e-6)
    ours, theirs = gradients(made, loss.total), gradients(made, expected)
    if family != "bert":
        assert ours["reward.bias"].item() == 0
        theirs.pop("reward.bias")
        if not objective.learn_temperature:
            assert ours["reward.log_temperature"].item() == 0
            theirs.pop("reward.log_temperature")
    assert_equal(ours, theirs)


def test_a_reward_is_read_at_the_last_real_token(tmp_path):
    """Where padding is the end-of-text token, looking for it would find the answer's own end, or none."""
    split = write_examples(tmp_path, [(3, 4), (3, 8)], groups=[2], ends=True)
    stream = GroupStream(ExampleTable(split), 24, 0)
    made = RewardModel(ModelConfig(**{**SIZES, "vocab_size": 200, "head": "reward"}))
    batch = group_tensors(stream.of([0]))
    together = candidate_rewards(made, batch)[0]
    for k in range(2):
        ids = batch.tokens[0, k, : batch.lengths[0, k]]
        torch.testing.assert_close(made(ids[None])[0], together[k], atol=1e-6, rtol=0)
    longer = GroupTensors(*batch)._replace(
        tokens=torch.nn.functional.pad(batch.tokens, (0, 5)),
        trained=torch.nn.functional.pad(batch.trained, (0, 5)),
    )
    torch.testing.assert_close(candidate_rewards(made, longer)[0], together, atol=1e-6, rtol=0)


def test_the_head_begins_as_published():
    """N(0, 1/sqrt(D + 1)), bias 0 (Stiennon et al. 2020)."""
    config = ModelConfig(num_layers=1, width=4096, num_heads=4, vocab_size=9, head="reward")
    values = initial_values("reward.weight", 0, 4096, config, 0)
    assert values.std() == pytest.approx(1 / math.sqrt(4097), rel=0.05)
    assert initial_values("reward.bias", 0, 1, config, 0).tolist() == [0]
    encoder = EncoderConfig(num_layers=1, width=4096, num_heads=4, vocab_size=9, head="reward")
    values = initial_values("classifier.weight", 0, 4096, encoder, 0)
    assert values.std() == pytest.approx(1 / math.sqrt(4097), rel=0.05)
