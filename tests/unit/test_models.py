"""The model, its sizes, its initial weights and its sampler."""

import itertools
from itertools import pairwise

import numpy as np
import pytest
import torch

from models.config import ModelConfig
from models.generation import SamplingOptions, generate
from models.initialization import BLOCK, initial_values
from models.sizes import count_parameters, flops_per_token, parameter_shapes
from models.transformer import Transformer
from seedbed.errors import UsageError

TINY = {"num_layers": 2, "width": 48, "num_heads": 4, "context": 32, "vocab_size": 101}


def tiny(family: str, **changes: object) -> Transformer:
    torch.manual_seed(0)
    model = Transformer(ModelConfig(family=family, **{**TINY, **changes})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = initial_values(name, 0, parameter.numel(), model.config, seed=0)
            parameter.copy_(torch.from_numpy(values).view(parameter.shape) * (5 if parameter.ndim > 1 else 1))
    return model


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("changes", [{}, {"num_kv_heads": 2}, {"tie_embeddings": False, "bias": False}])
def test_shapes_by_arithmetic_are_those_of_the_built_model(family, changes):
    """Plans and checkpoints would speak of a model that does not exist."""
    model = tiny(family, **changes)
    assert parameter_shapes(model.config) == {n: tuple(p.shape) for n, p in model.named_parameters()}
    assert count_parameters(model.config).total == sum(p.numel() for p in model.parameters())


def test_gpt2_has_the_published_number_of_parameters():
    """The module layout would not be GPT-2's."""
    assert count_parameters(ModelConfig(vocab_size=50257)).total == 124_439_808
    xl = ModelConfig(num_layers=48, width=1600, num_heads=25, vocab_size=50257)
    assert count_parameters(xl).total == 1_557_611_200


def test_llama_3_8b_has_the_published_number_of_parameters():
    config = ModelConfig(
        family="llama", num_layers=32, width=4096, num_heads=32, num_kv_heads=8, mlp_width=14336,
        vocab_size=128256, context=8192,
    )  # fmt: skip
    assert count_parameters(config).total == 8_030_261_248


def test_flops_agree_with_torchs_own_counter():
    """Utilisation would be reported against the wrong amount of work."""
    from torch.utils.flop_counter import FlopCounterMode

    model = tiny("gpt2", vocab_size=128)
    tokens = torch.zeros(1, 32, dtype=torch.long)
    with (
        FlopCounterMode(display=False) as counter,
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    ):
        model(tokens)
    forward = counter.get_total_flops()
    assert 3 * forward / 32 == pytest.approx(flops_per_token(model.config).full, rel=1e-6)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_position_sees_nothing_after_it(family):
    """The model would be trained on its own answers."""
    model = tiny(family)
    tokens = torch.randint(0, 101, (1, 16))
    changed = tokens.clone()
    changed[0, 10:] = (changed[0, 10:] + 1) % 101
    assert torch.equal(model(tokens)[0, :10], model(changed)[0, :10])
    assert not torch.equal(model(tokens)[0, 10:], model(changed)[0, 10:])


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_packed_documents_equal_documents_alone(family):
    """Attention would cross from one document to the next, and packing would change what is learnt."""
    model = tiny(family, num_kv_heads=2)
    tokens = torch.randint(0, 101, (2, 12))
    documents = torch.tensor([[0] * 5 + [1] * 7, [0] * 2 + [1] + [2] * 9])
    positions = torch.tensor([[*range(5), *range(7)], [0, 1, 0, *range(9)]])
    packed = model(tokens, positions=positions, documents=documents)
    for row, cuts in enumerate(((0, 5, 12), (0, 2, 3, 12))):
        for start, stop in pairwise(cuts):
            alone = model(tokens[row : row + 1, start:stop])
            torch.testing.assert_close(packed[row : row + 1, start:stop], alone, atol=1e-5, rtol=0)
    assert not torch.allclose(packed[:, 6:], model(tokens)[:, 6:], atol=1e-3)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("chunk", [1, 3])
def test_cached_decoding_equals_the_full_computation(family, chunk):
    """Generated text would come from another model than the trained one."""
    model = tiny(family, num_kv_heads=2)
    tokens = torch.randint(0, 101, (2, 12))
    cache = model.new_cache(2)
    parts = [model(part, cache) for part in tokens.split(chunk, dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), model(tokens), atol=1e-5, rtol=0)


def test_initial_values_do_not_depend_on_how_they_are_cut():
    """A run's first weights would depend on its number of ranks."""
    config, name, size = ModelConfig(**TINY), "blocks.0.mlp.up.weight", 3 * BLOCK + 17
    whole = initial_values(name, 0, size, config, seed=1)
    cuts = [0, 5, BLOCK - 1, BLOCK, 2 * BLOCK + 9, size]
    parts = [initial_values(name, a, b, config, seed=1) for a, b in itertools.pairwise(cuts)]
    assert np.array_equal(np.concatenate(parts), whole)
    assert whole.std() == pytest.approx(0.02, rel=0.01)
    assert not np.array_equal(whole, initial_values(name, 0, size, config, seed=2))
    assert not np.array_equal(whole, initial_values("blocks.1.mlp.up.weight", 0, size, config, seed=1))


def test_residual_outputs_start_smaller_and_gains_at_one():
    config = ModelConfig(**{**TINY, "num_layers": 8})
    down = initial_values("blocks.3.mlp.down.weight", 0, BLOCK, config, 0)
    assert down.std() == pytest.approx(0.02 / 4, rel=0.02)
    assert set(initial_values("blocks.3.mlp_norm.weight", 0, 9, config, 0)) == {1.0}
    assert set(initial_values("blocks.3.mlp.down.bias", 0, 9, config, 0)) == {0.0}


def test_a_sample_is_a_function_of_its_seed_and_greedy_is_the_argmax():
    """Nobody could look at the same text twice."""
    model = tiny("llama")
    texts = [list(generate(model, [1, 2], max_new_tokens=20, seed=seed)) for seed in (3, 3, 4)]
    assert texts[0] == texts[1] != texts[2]
    greedy = list(generate(model, [1, 2], max_new_tokens=1, options=SamplingOptions(temperature=0)))
    assert greedy == [int(model(torch.tensor([[1, 2]]))[0, -1].argmax())]


def test_truncated_sampling_stays_inside_what_it_keeps():
    from models.generation.sampler import choose

    logits = torch.tensor([0.0, 3.0, 2.0, 1.0])
    assert {choose(logits, SamplingOptions(top_k=2), u / 50) for u in range(50)} == {1, 2}
    assert {choose(logits, SamplingOptions(top_p=0.5), u / 50) for u in range(50)} == {1}
    assert {choose(logits, SamplingOptions(), u / 500) for u in range(500)} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("prompt", "said"), [([], "empty"), ([1] * 32, "context is 32"), ([5, 101], "vocabulary of 101")]
)
def test_prompts_that_cannot_be_continued_are_refused(prompt, said):
    with pytest.raises(UsageError, match=said):
        next(generate(tiny("gpt2"), prompt, max_new_tokens=4))


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"width": 50}, "nearest width that is: 48"), ({"num_kv_heads": 3}, "num_kv_heads")],
)
def test_shapes_that_do_not_divide_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        ModelConfig(**{**TINY, **changes})
