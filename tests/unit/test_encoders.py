"""The BERT family: sizes, initial weights, padding, heads; and rewards from a decoder."""

import itertools

import numpy as np
import pytest
import torch

from models import initialization
from models.bert.config import FAMILIES, HEADS_ON_POOLER, EncoderConfig
from models.bert.initialization import initial_values
from models.bert.sizes import count_parameters, flops_per_token, parameter_shapes
from models.bert.tasks import TASKS, make_encoder
from models.config import ModelConfig
from models.heads import RewardModel, reward_shapes
from seedbed.errors import UsageError

TINY = {"num_layers": 4, "width": 16, "num_heads": 2, "context": 24, "vocab_size": 50}
FAMILY = pytest.mark.parametrize("family", sorted(FAMILIES))


def tiny(family="bert", **changes):
    """A model on random weights that are large enough to tell things apart."""
    model = make_encoder(EncoderConfig(family=family, **{**TINY, **changes})).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=generator) * 0.3
            parameter.copy_(values + 1 if name.endswith("norm.weight") else values)
    return model


def batch(*shape):
    return torch.randint(3, 50, shape, generator=torch.Generator().manual_seed(1))


@FAMILY
@pytest.mark.parametrize("head", sorted(TASKS))
def test_shapes_by_arithmetic_are_those_of_the_built_model(family, head):
    """Plans and checkpoints would speak of a model that does not exist."""
    changes = {"pooler": "tanh"} if head in HEADS_ON_POOLER else {}
    with torch.device("meta"):
        model = make_encoder(EncoderConfig(family=family, head=head, num_labels=5, **TINY, **changes))
    assert parameter_shapes(model.config) == {n: tuple(p.shape) for n, p in model.named_parameters()}
    assert count_parameters(model.config).total == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("changes", "total"),
    [
        ({"vocab_size": 30522}, 109_482_240),
        ({"num_layers": 24, "width": 1024, "num_heads": 16, "vocab_size": 30522}, 335_141_888),
        ({"family": "roberta", "vocab_size": 50265}, 124_645_632),
        ({"family": "albert", "vocab_size": 30000}, 11_683_584),
        ({"family": "distilbert", "vocab_size": 30522}, 66_362_880),
    ],
    ids=["bert-base", "bert-large", "roberta-base", "albert-base", "distilbert"],
)
def test_published_models_have_the_published_number_of_parameters(changes, total):
    """The module layout would not be theirs."""
    assert count_parameters(EncoderConfig(**changes)).total == total


@pytest.mark.parametrize("head", ["none", "masked_lm", "pretraining", "token_classification"])
@pytest.mark.parametrize("family", ["bert", "albert"])
def test_flops_agree_with_torchs_own_counter(family, head):
    """Utilisation would be reported against the wrong amount of work."""
    from torch.utils.flop_counter import FlopCounterMode

    model = tiny(family, head=head, num_labels=7)
    if head == "none":
        model.pooler = None
    with (
        FlopCounterMode(display=False) as counter,
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    ):
        model(batch(1, 24))
    config = model.config.model_copy(update={"pooler": "none"}) if head != "pretraining" else model.config
    assert 3 * counter.get_total_flops() / 24 == pytest.approx(flops_per_token(config).full, rel=1e-6)


@FAMILY
def test_padding_changes_nothing_that_is_valid(family):
    """A sentence would mean something else beside a longer one."""
    model = tiny(family)
    tokens = batch(2, 20)
    valid = torch.arange(20) < torch.tensor([[20], [13]])
    padded = model(torch.where(valid, tokens, model.config.pad_id), None, valid)
    torch.testing.assert_close(padded[1:, :13], model(tokens[1:, :13]), atol=1e-5, rtol=0)
    torch.testing.assert_close(padded[:1], model(tokens[:1]), atol=1e-5, rtol=0)
    unmasked = model(torch.where(valid, tokens, model.config.pad_id))
    assert not torch.allclose(unmasked[1:, :13], padded[1:, :13], atol=1e-3)


@FAMILY
def test_every_token_sees_those_after_it_and_the_segments_count(family):
    """It would be a decoder; and sentences A and B would be one."""
    model = tiny(family)
    tokens = batch(1, 12)
    changed = tokens.clone()
    changed[0, -1] = (changed[0, -1] + 1) % 50
    assert not torch.allclose(model(tokens)[0, 0], model(changed)[0, 0], atol=1e-4)
    if model.config.num_segments == 2:
        segments = (torch.arange(12) >= 6).long()[None]
        assert not torch.allclose(model(tokens, segments), model(tokens), atol=1e-3)


def test_layers_of_a_group_are_one_block():
    """ALBERT would hold as many parameters as BERT, or compute fewer layers."""
    albert = tiny("albert", num_layers=4, num_groups=2)
    assert list(albert.blocks) == ["0", "1"]
    calls = []
    for name, block in albert.blocks.items():
        block.register_forward_hook(lambda *_, name=name: calls.append(name))
    albert(batch(1, 8))
    assert calls == ["0", "0", "1", "1"]


def test_masked_positions_alone_have_the_logits_that_they_have_among_all():
    """The loss of selected positions would not be that of the masked language model."""
    model = tiny(head="pretraining")
    tokens, selected = batch(2, 12), torch.rand(2, 12, generator=torch.Generator().manual_seed(2)) < 0.3
    every, some = model(tokens), model(tokens, selected_BT=selected)
    torch.testing.assert_close(some.tokens, every.tokens[selected], atol=1e-6, rtol=0)
    assert some.tokens.shape == (int(selected.sum()), 50)
    assert torch.equal(some.pair, every.pair)


def test_a_pretrained_checkpoint_fills_a_classifier_but_for_its_head():
    """Fine-tuning would start from random weights."""
    pretrained, classifier = tiny(head="pretraining"), tiny(head="sequence_classification", num_labels=3)
    told = classifier.load_state_dict(pretrained.state_dict(), strict=False)
    assert told.missing_keys == ["classifier.weight", "classifier.bias"]
    assert {name.split(".")[0] for name in told.unexpected_keys} == {"masked_lm", "pair"}


def test_heads_give_one_number_for_what_they_judge():
    """A loss would broadcast silently against its targets."""
    tokens = batch(2, 9)
    assert tiny(head="sequence_classification", num_labels=5)(tokens).shape == (2, 5)
    assert tiny(head="token_classification", num_labels=5)(tokens).shape == (2, 9, 5)
    assert [x.shape for x in tiny(head="span")(tokens)] == [(2, 9), (2, 9)]
    assert tiny(head="reward")(tokens).shape == (2,)
    choices = tiny(head="multiple_choice")
    scores = choices(batch(2, 3, 9), None, torch.ones(2, 3, 9, dtype=torch.bool))
    assert scores.shape == (2, 3)
    torch.testing.assert_close(scores[:, 1], choices(batch(2, 3, 9)[:, 1:2])[:, 0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_decoders_reward_is_that_of_the_last_token_of_each_sequence(family):
    """The reward would be read from padding."""
    config = ModelConfig(family=family, **{**TINY, "num_layers": 2})
    model = RewardModel(config).eval()
    initialization.initialize(model, config, seed=0)
    assert reward_shapes(config) == {n: tuple(p.shape) for n, p in model.named_parameters()}
    tokens, valid = batch(2, 12), torch.arange(12) < torch.tensor([[12], [7]])
    rewards = model(tokens, valid)
    alone = torch.cat([model(tokens[:1]), model(tokens[1:, :7])])
    torch.testing.assert_close(rewards, alone, atol=1e-6, rtol=0)
    torch.testing.assert_close(model.scores(tokens)[1, 6], rewards[1], atol=1e-6, rtol=0)
    assert (rewards - model(tokens))[1].abs() > 1e-5


def test_initial_values_do_not_depend_on_how_they_are_cut():
    """A run's first weights would depend on its number of ranks."""
    config, name = EncoderConfig(**TINY), "blocks.0.mlp.up.weight"
    size = 2 * initialization.BLOCK + 17
    whole = initial_values(name, 0, size, config, seed=1)
    cuts = [0, 5, initialization.BLOCK - 1, initialization.BLOCK + 9, size]
    parts = [initial_values(name, a, b, config, seed=1) for a, b in itertools.pairwise(cuts)]
    assert np.array_equal(np.concatenate(parts), whole)
    assert whole.std() == pytest.approx(0.02, rel=0.01)
    assert not np.array_equal(whole, initial_values("blocks.1.mlp.up.weight", 0, size, config, seed=1))


def test_initial_gains_are_one_and_biases_zero():
    """Norms would begin by silencing what they should pass."""
    config = EncoderConfig(**TINY, head="pretraining")
    for name in parameter_shapes(config):
        values = set(initial_values(name, 0, 9, config, 0).tolist())
        if name.endswith(".bias"):
            assert values == {0.0}, name
        elif "norm." in name:
            assert values == {1.0}, name
        else:
            assert len(values) == 9, name


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"width": 17}, "nearest width that is: 16"),
        ({"num_groups": 3}, "num_groups = 3"),
        ({"pooler": "none", "head": "pretraining"}, "reads the pooler"),
        ({"family": "roberta", "pad_id": 60}, "outside"),
        ({"num_segment": 2}, "num_segment"),
    ],
)
def test_configurations_that_make_no_model_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        EncoderConfig(**{**TINY, **changes})


def test_a_sequence_longer_than_the_context_is_refused():
    with pytest.raises(UsageError, match=r"25 tokens, and model\.context is 24"):
        tiny("roberta")(batch(1, 25))
