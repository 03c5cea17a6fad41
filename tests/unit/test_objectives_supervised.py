"""Supervised fine-tuning: the loss of its formula, packing that changes nothing, parameters that stay."""

import numpy as np
import pytest
import torch
from token_splits import write_examples

from data.examples.supervised import SupervisedStream
from data.examples.table import ExampleTable
from models.config import ModelConfig
from models.families import initial_values
from models.transformer import Transformer
from seedbed.errors import ConfigError
from seedbed.randomness import generator
from training.objectives import TensorBatch
from training.objectives.causal_lm import CausalLM
from training.trainable import trained_names

VOCABULARY = 50


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """Random tokens, so that an answer cannot be told from its place."""
    draws = generator(0, "examples")
    sizes = [(int(a), int(b)) for a, b in draws.integers(2, 10, size=(12, 2))]
    tokens = [draws.integers(1, VOCABULARY, size=a + b).tolist() for a, b in sizes]
    return ExampleTable(write_examples(tmp_path_factory.mktemp("examples"), sizes, tokens=tokens))


def model(family="llama", **changes):
    sizes = {"num_layers": 2, "width": 32, "num_heads": 4, "context": 32, "vocab_size": VOCABULARY}
    config = ModelConfig(family=family, **{**sizes, **changes})
    made = Transformer(config).double()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            values = initial_values(name, 0, parameter.numel(), config, 0)
            parameter.copy_(torch.from_numpy(values).view(parameter.shape) * 5)
    return made


def tensors(batch):
    return TensorBatch(*(torch.from_numpy(getattr(batch, name)) for name in (
        "tokens", "targets", "weights", "positions", "documents")))  # fmt: skip


def gradients(made, loss):
    made.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in made.named_parameters()}


@pytest.mark.parametrize(
    "parts",
    [
        {"family": "llama"},
        {"family": "gpt2"},
        {"family": "gpt2", "positions": "alibi"},
        {"family": "mistral", "window": 6},
    ],
)
def test_packed_examples_teach_what_each_teaches_alone(examples, parts):
    """An example would otherwise see its neighbours, or stand elsewhere than when the model is asked."""
    made = model(**parts)
    apart = SupervisedStream(examples, 32, 0, pack=False, shuffle=False)
    packed = SupervisedStream(examples, 32, 0, pack=True, shuffle=False)
    assert packed.num_samples < apart.num_samples / 1.5
    found = []
    for stream in (apart, packed):
        batch = tensors(stream.batch(0, stream.num_samples))
        logits = made(batch.tokens, positions=batch.positions, documents=batch.documents)
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), batch.targets, reduction="none")
        per_token = {}
        for row, column in zip(*torch.nonzero(batch.weights, as_tuple=True), strict=True):
            document = batch.documents[row] == batch.documents[row, column]
            first = batch.tokens[row][document].tolist()
            per_token[tuple(first), int(batch.positions[row, column])] = losses[row, column].item()
        found.append((per_token, gradients(made, CausalLM().loss(made, batch).total)))
    (losses_apart, gradients_apart), (losses_packed, gradients_packed) = found
    assert losses_apart.keys() == losses_packed.keys()
    assert len(losses_apart) == int(sum(np.diff(examples.spans_of(s)).sum() for s in range(12)))
    for key, value in losses_apart.items():
        assert losses_packed[key] == pytest.approx(value, abs=1e-6)
    for name, gradient in gradients_apart.items():
        torch.testing.assert_close(gradients_packed[name], gradient, atol=1e-6, rtol=0, msg=name)


def test_the_loss_is_that_of_the_responses_alone(examples):
    """-sum over the answer's tokens of log p, by hand and one example at a time."""
    made = model()
    expected, count = torch.zeros((), dtype=torch.float64), 0
    for sequence in range(examples.num_sequences):
        ids = torch.from_numpy(examples.tokens(sequence))
        begin = int(examples.spans_of(sequence)[0, 0])
        log_probs = made(ids[None])[0].log_softmax(-1)
        for place in range(begin, len(ids)):
            expected = expected - log_probs[place - 1, ids[place]]
            count += 1
    stream = SupervisedStream(examples, 32, 0)
    loss = CausalLM().loss(made, tensors(stream.batch(0, stream.num_samples)))
    assert loss.weight.item() == count
    # Cross-entropy is taken in float32.
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-6)
    ours, theirs = gradients(made, loss.total), gradients(made, expected)
    for name, gradient in theirs.items():
        scale = gradient.abs().max().item()
        torch.testing.assert_close(ours[name], gradient, atol=1e-6 * max(1.0, scale), rtol=1e-5, msg=name)


def test_what_learns_by_name():
    """Freezing another layer than the one that was named would go unnoticed."""
    config = ModelConfig(family="llama", num_layers=3, width=32, num_heads=4, vocab_size=9)
    assert trained_names(config, "head") == {"norm.weight", "head.weight"}
    last = trained_names(config, "last:1")
    assert "blocks.2.mlp.up.weight" in last
    assert not any(name.startswith(("blocks.0", "blocks.1", "embedding")) for name in last)
    assert len(trained_names(config, "all")) > len(trained_names(config, "last:3")) > len(last)
    tied = config.model_copy(update={"tie_embeddings": True})
    with pytest.raises(ConfigError, match="is its embedding"):
        trained_names(tied, "head")
    with pytest.raises(ConfigError, match="has 3 blocks"):
        trained_names(config, "last:4")
    reward = tied.model_copy(update={"head": "reward"})
    assert {name for name in trained_names(reward, "head") if "norm" not in name} == {
        "reward.weight",
        "reward.bias",
        "reward.log_temperature",
    }
