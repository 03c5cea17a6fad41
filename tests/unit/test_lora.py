"""Low-rank adapters: what they begin as, what they come to, and how `peft` reads them."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.config import ModelConfig
from models.families import build, parameter_shapes
from models.generation.packed import share
from models.hf.adapter import export_adapter
from models.hf.convert import export_model
from models.initialization import initial_values, initialize
from models.lora import LoraLinear, merged, without
from models.quantized import QuantizedMatrix, quantized_matrices
from models.sizes import bytes_of_weights, count_parameters, is_adapted
from seedbed.errors import ConfigError
from training.trainable import trained_names

LLAMA = {
    "family": "llama", "num_layers": 2, "width": 32, "num_heads": 4, "num_kv_heads": 2, "mlp_width": 48,
    "context": 16, "vocab_size": 61, "lora_rank": 4, "lora_alpha": 8,
}  # fmt: skip
TOKENS = torch.arange(24).view(2, 12) % 61


def model_of(config: ModelConfig):
    model = build(config)
    initialize(model, config, seed=3)
    return model.eval()


def moved(config: ModelConfig):
    """A model whose adapters have learnt something."""
    model = model_of(config)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".lora_B"):
                parameter.normal_(0, 0.1, generator=random)
    return model


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"lora_layers": "attention"},
        {"family": "gpt2", "num_kv_heads": 0},
        {"family": "qwen3_moe", "num_experts": 4, "experts_per_token": 2, "expert_width": 16},
        {"head": "reward"},
    ],
)
def test_a_model_begins_as_the_one_that_it_adapts(change):
    """Fine-tuning would begin with a jump of the loss."""
    config = ModelConfig(**{**LLAMA, **change})
    model, base = model_of(config), model_of(without(config))
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert shapes == dict(parameter_shapes(config))
    assert count_parameters(config).total == sum(p.numel() for p in model.parameters())
    assert torch.equal(model.hidden(TOKENS), base.hidden(TOKENS))
    adapted = {path for path, module in model.named_modules() if isinstance(module, LoraLinear)}
    assert any(".attention." in path for path in adapted)
    has_mlp = config.lora_layers == "all" and not config.num_experts
    assert any(".mlp." in path for path in adapted) == has_mlp
    heads = {"reward.weight", "reward.bias", "reward.log_temperature"} if config.head == "reward" else set()
    learning = trained_names(config, "lora")
    assert learning == heads | {f"{path}.lora_{side}" for path in adapted for side in "AB"}


def test_the_first_numbers_have_the_spread_of_the_published_code():
    """Kaiming's uniform numbers with a = sqrt(5): variance 1/(3 n)."""
    config = ModelConfig(**{**LLAMA, "width": 256, "lora_rank": 64})
    name = "blocks.0.attention.query.lora_A"
    values = initial_values(name, 0, 64 * 256, config, seed=0)
    assert np.std(values) == pytest.approx(1 / math.sqrt(3 * 256), rel=0.03)
    assert np.array_equal(initial_values(name, 100, 200, config, seed=0), values[100:200])


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_merged_computes_the_same(family):
    """What is generated with, scored and exported would not be what was trained."""
    config = ModelConfig(**{**LLAMA, "family": family, "num_kv_heads": 0})
    model = moved(config)
    plain, tensors = merged(config, model.state_dict())
    assert plain.lora_rank == 0
    base = build(plain).eval()
    base.load_state_dict(tensors)
    torch.testing.assert_close(base(TOKENS), model(TOKENS), atol=1e-5, rtol=0)
    torch.testing.assert_close(share(model)(TOKENS), model(TOKENS), atol=1e-5, rtol=0)
    before = model_of(plain)(TOKENS)
    assert (model(TOKENS) - before).abs().max() > 1e-3


@pytest.mark.parametrize("layers", ["attention", "all"])
def test_peft_computes_and_learns_the_same(tmp_path, layers):
    """An adapter that others cannot load, or that means something else there."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    config = ModelConfig(**{**LLAMA, "lora_layers": layers})
    model = moved(config)
    base = {name: value for name, value in model.state_dict().items() if ".lora_" not in name}
    export_model(without(config), base, tmp_path / "base")
    export_adapter(config, model.state_dict(), tmp_path / "adapter", base=str(tmp_path / "base"))
    theirs = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "adapter", is_trainable=True
    ).eval()
    logits = model(TOKENS)
    expected = theirs(input_ids=TOKENS).logits
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    for one in (logits, expected):
        F.cross_entropy(one[:, :-1].flatten(0, 1), TOKENS[:, 1:].flatten()).backward()
    gradients = {
        name: p.grad for name, p in theirs.named_parameters() if p.requires_grad and p.grad is not None
    }
    ours = {name: p.grad for name, p in model.named_parameters() if ".lora_" in name}
    assert len(gradients) == len(ours)
    key = "base_model.model.model.layers.1.self_attn.v_proj.lora_A.default.weight"
    torch.testing.assert_close(ours["blocks.1.attention.value.lora_A"], gradients[key], atol=1e-6, rtol=1e-5)


def test_what_cannot_be_is_refused(tmp_path):
    config = ModelConfig(**{**LLAMA, "family": "gpt2", "num_kv_heads": 0})
    with pytest.raises(ConfigError, match=r"has no layer of its own for blocks\.0\.attention\.key"):
        export_adapter(config, model_of(config).state_dict(), tmp_path / "a", base="")
    with pytest.raises(ConfigError, match="has no adapters"):
        export_adapter(without(config), {}, tmp_path / "b", base="")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="adapters learn alone"):
        trained_names(config, "all")
    with pytest.raises(ConfigError, match="adapters learn alone"):
        trained_names(without(config), "lora")
    with pytest.raises(ValueError, match="does not go with latent attention"):
        ModelConfig(family="deepseek_v2", lora_rank=4)


def quantized_copy(config: ModelConfig, model):
    """The same model with its adapted matrices in four bits."""
    other = build(config.model_copy(update={"lora_base": "nf4"})).eval()
    other.load_state_dict(model.state_dict(), strict=False)
    for name, matrix in quantized_matrices(other):
        matrix.put(model.get_parameter(name).detach())
    return other


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_quantised_base_computes_and_learns_as_its_numbers_do(dtype):
    """Against the model whose matrices are what the four bits mean; gradients pass through them."""
    config = ModelConfig(**LLAMA)
    model = moved(config)
    quantized = quantized_copy(config, model)
    matrices = dict(quantized_matrices(quantized))
    assert matrices.keys() == {name for name in parameter_shapes(config) if is_adapted(name, config)}
    assert not matrices.keys() & dict(quantized.named_parameters()).keys()
    with torch.no_grad():
        for name, matrix in matrices.items():
            assert 0 < (matrix.values() - model.get_parameter(name)).abs().mean() < 0.01
            model.get_parameter(name).copy_(matrix.values())
    found = []
    for one in (model, quantized):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            F.cross_entropy(one(TOKENS)[:, :-1].flatten(0, 1), TOKENS[:, 1:].flatten()).backward()
        found.append({name: p.grad for name, p in one.named_parameters() if ".lora_" in name})
    torch.testing.assert_close(share(quantized)(TOKENS), share(model)(TOKENS), atol=1e-5, rtol=0)
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("shape", [(64, 64), (7, 9), (33, 65)])
def test_four_bits_are_the_same_when_they_are_put_in_again(shape):
    """A run that goes on from a checkpoint would go on from another base."""
    matrix, again = QuantizedMatrix(*shape), QuantizedMatrix(*shape)
    matrix.put(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    again.put(matrix.values())
    assert torch.equal(again.codes, matrix.codes)
    assert torch.equal(again.values(), matrix.values())


def test_nf4_is_the_published_one():
    """Each number becomes the nearest of sixteen, times the largest magnitude of its block (Dettmers et al.
    2023, appendix E)."""
    levels = torch.tensor([
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
        0.7229568362236023, 1.0,
    ])  # fmt: skip
    values = torch.randn(6, 64, generator=torch.Generator().manual_seed(5))
    largest = values.abs().amax(1, keepdim=True)
    nearest = ((values / largest)[..., None] - levels).abs().argmin(-1)
    matrix = QuantizedMatrix(6, 64)
    matrix.put(values)
    torch.testing.assert_close(matrix.values(), levels[nearest] * largest, atol=1e-6, rtol=0)


def test_a_quantised_model_takes_the_memory_that_is_planned():
    config = ModelConfig(**{**LLAMA, "lora_base": "nf4"})
    model = quantized_copy(ModelConfig(**LLAMA), moved(ModelConfig(**LLAMA)))
    held = 4 * sum(parameter.numel() for parameter in model.parameters())
    for _, matrix in quantized_matrices(model):
        held += matrix.codes.nbytes + matrix.largest.nbytes
    assert bytes_of_weights(config) == held < 0.6 * bytes_of_weights(ModelConfig(**LLAMA))


def test_a_quantised_base_is_of_adapters():
    with pytest.raises(ValueError, match=r'lora_base = "nf4" is of what adapters are on'):
        ModelConfig(**{**LLAMA, "lora_rank": 0, "lora_base": "nf4"})
