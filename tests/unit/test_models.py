"""The model, its sizes, its initial weights and its sampler."""

import itertools
from itertools import pairwise

import numpy as np
import pytest
import torch

from models.config import FAMILIES, ModelConfig
from models.generation import SamplingOptions, generate
from models.initialization import BLOCK, initial_values, initialize
from models.sizes import count_parameters, flops_per_token, kv_cache_bytes, parameter_shapes
from models.transformer import Transformer
from seedbed.errors import UsageError

TINY = {"num_layers": 2, "width": 48, "num_heads": 4, "context": 32, "vocab_size": 101}
LATENT = {"latent_width": 8, "head_width": 8, "rope_width": 4, "query_latent_width": 0}
EXPERTS = {"num_experts": 4, "expert_width": 24, "experts_per_token": 2}
GROUPS = {"num_experts": 8, "experts_per_token": 3, "num_expert_groups": 4, "groups_per_token": 2}
# Every family, and every part that a family can be given.
PARTS = {
    "gpt1": ("gpt1", {}),
    "gpt2": ("gpt2", {}),
    "gpt2-mqa": ("gpt2", {"num_kv_heads": 1}),
    "sinusoidal": ("gpt2", {"positions": "sinusoidal"}),
    "alibi": ("gpt2", {"positions": "alibi", "num_kv_heads": 2}),
    "llama": ("llama", {}),
    "llama-gqa": ("llama", {"num_kv_heads": 2}),
    "llama3": ("llama", {"rope_scaling": "llama3", "rope_factor": 8.0, "rope_original_context": 8}),
    "yarn": ("llama", {"rope_scaling": "yarn", "rope_factor": 4.0, "rope_original_context": 8}),
    "linear": ("llama", {"rope_scaling": "linear", "rope_factor": 2.0, "bias": True}),
    "temperature": ("llama", {"attention_temperature": 0.5, "tie_embeddings": True}),
    "mistral": ("mistral", {"window": 5, "num_kv_heads": 2}),
    "alibi-window": ("llama", {"window": 4, "positions": "alibi", "num_heads": 6}),
    "mixtral": ("mixtral", {**EXPERTS, "num_kv_heads": 2}),
    "qwen2": ("qwen2", {"num_kv_heads": 2}),
    "qwen3": ("qwen3", {"num_kv_heads": 2, "head_width": 16}),
    "qwen2_moe": ("qwen2_moe", {**EXPERTS, "num_kv_heads": 2, "num_shared_experts": 2}),
    "qwen3_moe": ("qwen3_moe", {**EXPERTS, "num_kv_heads": 2, "num_dense_layers": 1}),
    "latent": ("llama", {**LATENT, "window": 6}),
    "deepseek_v2": ("deepseek_v2", {**LATENT, **EXPERTS, "query_latent_width": 12, "value_width": 6}),
    "groups": ("deepseek_v2", {**LATENT, **GROUPS, "num_dense_layers": 0, "expert_scale": 2.0}),
}
every_part = pytest.mark.parametrize("part", PARTS)


def tiny(family: str, **changes: object) -> Transformer:
    torch.manual_seed(0)
    model = Transformer(ModelConfig(family=family, **{**TINY, **changes})).eval()
    initialize(model, model.config, seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5 if parameter.ndim > 1 else 1)
    return model


def tiny_of(part: str) -> Transformer:
    family, changes = PARTS[part]
    return tiny(family, **changes)


def test_every_family_is_among_the_parts():
    """The tests below would pass over one that nobody looks at."""
    assert {family for family, _ in PARTS.values()} == set(FAMILIES)


@every_part
def test_shapes_by_arithmetic_are_those_of_the_built_model(part):
    """Plans and checkpoints would speak of a model that does not exist."""
    model = tiny_of(part)
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


def test_active_parameters_of_mixtral_are_the_published_ones():
    """Jiang et al. 2024: 47 billion in all, of which a token uses 13."""
    count = count_parameters(
        ModelConfig(
            family="mixtral", num_layers=32, width=4096, num_heads=32, num_kv_heads=8, mlp_width=14336,
            vocab_size=32000,
        )
    )  # fmt: skip
    assert (count.total, count.active) == (46_702_792_704, 12_879_925_248)


def test_deepseek_v2_has_the_published_number_of_parameters():
    """DeepSeek-V2, 2024: 236 billion in all, 21 active; the Lite model 15.7 and 2.4.

    Its active parameters leave out the table of input embeddings.
    """
    large = ModelConfig(
        family="deepseek_v2", num_layers=60, width=5120, num_heads=128, mlp_width=12288, vocab_size=102400,
        num_experts=160, expert_width=1536,
    )  # fmt: skip
    lite = ModelConfig(
        family="deepseek_v2", num_layers=27, width=2048, num_heads=16, mlp_width=10944, vocab_size=102400,
        expert_width=1408, query_latent_width=0,
    )  # fmt: skip
    for config, total, active in ((large, 236e9, 21e9), (lite, 15.7e9, 2.4e9)):
        count = count_parameters(config)
        assert count.total == pytest.approx(total, rel=0.005)
        assert count.active - config.vocab_size * config.width == pytest.approx(active, rel=0.025)


@pytest.mark.parametrize(
    ("num_layers", "num_heads", "sizes_mb"), [(96, 96, (4608, 48, 384)), (40, 40, (800, 20, 160))]
)
def test_caches_of_gpt_3_have_the_known_sizes(num_layers, num_heads, sizes_mb):
    """GPT-3 of 175 and of 13 billion, 1,024 tokens in 16 bits, with all heads, one, and eight groups."""
    for num_kv_heads, size_mb in zip((0, 1, 8), sizes_mb, strict=True):
        config = ModelConfig(
            num_layers=num_layers, num_heads=num_heads, width=128 * num_heads, num_kv_heads=num_kv_heads
        )
        assert kv_cache_bytes(config, batch=1, tokens=1024, bytes_per_value=2) == size_mb * 2**20


@every_part
def test_a_cache_takes_the_bytes_that_were_planned(part):
    """Generation would run out of the memory that was planned for it."""
    model = tiny_of(part)
    cache = model.new_cache(3)
    cache.extend(range(3), [model.config.context] * 3)
    held = sum(b.numel() * b.element_size() for layer in cache.buffers_MGSK for b in layer)
    assert held == kv_cache_bytes(model.config, 3, model.config.context, 4)


@pytest.mark.parametrize("part", ["gpt2", "llama-gqa", "mixtral", "deepseek_v2", "groups"])
def test_flops_agree_with_torchs_own_counter(part):
    """Utilisation would be reported against the wrong amount of work."""
    from torch.utils.flop_counter import FlopCounterMode

    model = tiny_of(part)
    tokens = torch.zeros(1, 32, dtype=torch.long)
    with (
        FlopCounterMode(display=False) as counter,
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    ):
        model(tokens)
    forward = counter.get_total_flops()
    assert 3 * forward / 32 == pytest.approx(flops_per_token(model.config).full, rel=1e-6)


@every_part
def test_a_position_sees_nothing_after_it(part):
    """The model would be trained on its own answers."""
    model = tiny_of(part)
    tokens = torch.randint(0, 101, (1, 16))
    changed = tokens.clone()
    changed[0, 10:] = (changed[0, 10:] + 1) % 101
    torch.testing.assert_close(model(tokens)[0, :10], model(changed)[0, :10], atol=1e-6, rtol=0)
    assert not torch.equal(model(tokens)[0, 10:], model(changed)[0, 10:])


@every_part
def test_packed_documents_equal_documents_alone(part):
    """Attention would cross from one document to the next, and packing would change what is learnt."""
    model = tiny_of(part)
    tokens = torch.randint(0, 101, (2, 12))
    documents = torch.tensor([[0] * 5 + [1] * 7, [0] * 2 + [1] + [2] * 9])
    positions = torch.tensor([[*range(5), *range(7)], [0, 1, 0, *range(9)]])
    packed = model(tokens, positions=positions, documents=documents)
    for row, cuts in enumerate(((0, 5, 12), (0, 2, 3, 12))):
        for start, stop in pairwise(cuts):
            alone = model(tokens[row : row + 1, start:stop])
            torch.testing.assert_close(packed[row : row + 1, start:stop], alone, atol=1e-5, rtol=0)
    assert not torch.allclose(packed[:, 6:], model(tokens)[:, 6:], atol=1e-4)


@every_part
@pytest.mark.parametrize("chunk", [1, 3])
def test_cached_decoding_equals_the_full_computation(part, chunk):
    """Generated text would come from another model than the trained one."""
    model = tiny_of(part)
    tokens = torch.randint(0, 101, (2, 12))
    cache = model.new_cache(2)
    parts = [
        model(part.reshape(1, -1), cache.extend(range(2), [chunk] * 2)).view(2, chunk, -1)
        for part in tokens.split(chunk, dim=1)
    ]
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


@pytest.mark.parametrize(
    ("scheme", "variance"), [("lecun", 1 / 512), ("xavier", 2 / (128 + 512)), ("he", 2 / 512)]
)
def test_schemes_by_inputs_and_outputs_have_their_variance(scheme, variance):
    """A deep model would start with signals that grow or die out."""
    config = ModelConfig(num_layers=1, width=128, num_heads=4, vocab_size=99, initialization=scheme)
    assert initial_values("blocks.0.mlp.down.weight", 0, BLOCK, config, 0).var() == pytest.approx(
        variance, rel=0.03
    )
    assert initial_values("embedding.weight", 0, 99 * 128, config, 0).std() == pytest.approx(0.02, rel=0.03)


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
    [
        ({"width": 50}, "nearest width that is: 48"),
        ({"num_kv_heads": 3}, "num_kv_heads"),
        ({"positions": "rope", "head_width": 5}, "even head size"),
        ({"positions": "sinusoidal", "width": 51, "num_heads": 3}, "even model.width"),
        ({"rope_width": 4}, "belong to latent attention"),
        ({"latent_width": 8}, "rope"),
        ({"family": "llama", **LATENT, "num_kv_heads": 2}, "every head"),
        ({"num_experts": 4}, "swiglu"),
        ({"family": "mixtral", "experts_per_token": 9}, "can choose from 8"),
        ({"family": "mixtral", "num_expert_groups": 3}, "num_expert_groups = 3"),
        ({"family": "mixtral", "num_expert_groups": 2, "groups_per_token": 3}, "groups_per_token"),
        ({"family": "mixtral", "num_dense_layers": 3}, "num_dense_layers = 3"),
        ({"num_shared_experts": 1}, "needs model.num_experts"),
        ({"shared_expert_gate": True}, "needs model.num_shared_experts"),
        ({"rope_slow_turns": 4.0, "rope_scaling": "llama3"}, "rope_slow_turns"),
    ],
)
def test_shapes_that_do_not_divide_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        ModelConfig(**{**TINY, **changes})
