"""Stochastic depth: whole samples go around sub-layers, in training alone, more often the deeper."""

import pytest
import torch

from models.bert.config import EncoderConfig
from models.config import ModelConfig
from models.drop_path import drop_path, drop_rate
from models.families import build
from models.transformer import Transformer


def test_a_sample_is_left_out_whole_and_the_others_make_up_for_it():
    """Or the mean of what a layer adds would change between training and use."""
    torch.manual_seed(0)
    kept = drop_path(torch.ones(4000, 3, 2), 0.25, training=True).flatten(1)
    assert torch.equal(kept.amin(1), kept.amax(1))
    assert kept.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert kept.mean().item() == pytest.approx(1, abs=0.03)
    assert [drop_rate(0.3, layer, 3) for layer in range(3)] == pytest.approx([0.1, 0.2, 0.3])


@pytest.mark.parametrize("norm_placement", ["pre", "post"])
def test_a_decoder_drops_layers_in_training_alone(norm_placement):
    """At a rate near 1 the last block adds nothing; in use it does."""
    sizes = {"num_layers": 1, "width": 8, "num_heads": 2, "context": 8, "vocab_size": 11}
    model = Transformer(ModelConfig(**sizes, norm_placement=norm_placement, drop_path=0.999999))
    around = Transformer(ModelConfig(**sizes, norm_placement=norm_placement))
    around.load_state_dict(model.state_dict())
    tokens = torch.arange(8)[None]
    torch.manual_seed(0)
    assert torch.equal(model.eval()(tokens), around.eval()(tokens))
    for output in (around.blocks["0"].attention.output, around.blocks["0"].mlp.down):
        torch.nn.init.zeros_(output.weight)
        torch.nn.init.zeros_(output.bias)
    torch.testing.assert_close(model.train()(tokens), around(tokens))


def test_layers_of_a_shared_block_have_each_their_own_rate(monkeypatch):
    """ALBERT goes through one block again and again: it would drop all layers alike."""
    rates = []
    monkeypatch.setattr("models.bert.encoder.drop_path", lambda branch, rate, _: rates.append(rate) or branch)
    sizes = {
        "num_layers": 2,
        "width": 8,
        "num_heads": 2,
        "embedding_width": 4,
        "vocab_size": 11,
        "context": 8,
    }
    build(EncoderConfig(family="albert", drop_path=0.2, **sizes))(torch.arange(4)[None])
    assert rates == pytest.approx([0.1, 0.1, 0.2, 0.2])
