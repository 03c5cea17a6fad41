"""Decoders against their reference implementations: import, export, logits, loss and gradients.

The references are small models of `transformers` with random weights; nothing is downloaded.
"""

import json
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from models.hf import FORMATS, export_model, import_model
from models.sizes import count_parameters, parameter_shapes
from models.transformer import Transformer
from seedbed.errors import ConfigError, DataError, UsageError

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 61, "n_positions": 64}
LLAMA = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 61,
    "max_position_embeddings": 64,
}
DEEPSEEK = {
    **LLAMA,
    "num_key_value_heads": 4,
    "q_lora_rank": 12,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 6,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 2.0,
}
QWEN_MOE = {**LLAMA, "num_experts": 6, "moe_intermediate_size": 16}
LLAMA3_ROPE = {
    "rope_theta": 10000.0,
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN_ROPE = {
    "rope_theta": 100.0,
    "rope_type": "yarn",
    "factor": 4.0,
    "beta_fast": 3.0,
    "beta_slow": 0.5,
    "original_max_position_embeddings": 16,
}
LINEAR_ROPE = {"rope_theta": 5000.0, "rope_type": "linear", "factor": 4.0}
GROUPED = {
    "topk_method": "group_limited_greedy",
    "n_group": 4,
    "topk_group": 2,
    "q_lora_rank": None,
    "num_experts_per_tok": 2,
}
CASES = {
    "gpt1": ("OpenAIGPT", GPT),
    "gpt2": ("GPT2", GPT),
    "gpt2-untied": ("GPT2", {**GPT, "tie_word_embeddings": False, "n_inner": 40}),
    "llama": ("Llama", LLAMA),
    "llama-tied": ("Llama", {**LLAMA, "tie_word_embeddings": True, "head_dim": 16}),
    "llama3-rope": ("Llama", {**LLAMA, "rope_parameters": LLAMA3_ROPE}),
    "llama-linear": ("Llama", {**LLAMA, "rope_parameters": LINEAR_ROPE}),
    "mistral": ("Mistral", {**LLAMA, "sliding_window": 7}),
    "mistral-no-window": ("Mistral", {**LLAMA, "sliding_window": None}),
    "mixtral": ("Mixtral", {**LLAMA, "num_local_experts": 4}),
    "qwen2": ("Qwen2", LLAMA),
    "qwen2-window": (
        "Qwen2",
        {**LLAMA, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 0},
    ),
    "qwen3": ("Qwen3", {**LLAMA, "head_dim": 16}),
    "qwen2_moe": (
        "Qwen2Moe",
        {**QWEN_MOE, "num_experts_per_tok": 2, "shared_expert_intermediate_size": 32},
    ),
    "qwen3_moe": ("Qwen3Moe", {**QWEN_MOE, "num_experts_per_tok": 3, "norm_topk_prob": True, "head_dim": 16}),
    "qwen3_moe-dense-first": ("Qwen3Moe", {**QWEN_MOE, "num_experts_per_tok": 3, "mlp_only_layers": [0]}),
    "deepseek_v2": ("DeepseekV2", DEEPSEEK),
    "llama-yarn": ("Llama", {**LLAMA, "rope_parameters": YARN_ROPE, "head_dim": 16}),
    "deepseek_v2-yarn": (
        "DeepseekV2",
        {**DEEPSEEK, "rope_parameters": {**YARN_ROPE, "mscale": 0.5, "mscale_all_dim": 0.7}},
    ),
    "deepseek_v2-groups": ("DeepseekV2", {**DEEPSEEK, **GROUPED}),
}


def reference(case: str) -> torch.nn.Module:
    """A random model of `transformers`, with weights large enough that every part matters."""
    import transformers

    stem, settings = CASES[case]
    torch.manual_seed(0)
    head = "LMHeadModel" if stem in ("GPT2", "OpenAIGPT") else "ForCausalLM"
    config = getattr(transformers, f"{stem}Config")(**settings)
    model = getattr(transformers, f"{stem}{head}")._from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Path of one saved reference and the reference itself, built once for all tests."""
    saved: dict[str, tuple[Path, torch.nn.Module]] = {}

    def get(case: str) -> tuple[Path, torch.nn.Module]:
        if case not in saved:
            path, model = tmp_path_factory.mktemp(case), reference(case)
            model.save_pretrained(path)
            saved[case] = path, model
        return saved[case]

    return get


def ours(path: Path) -> Transformer:
    imported = import_model(path)
    with torch.device("meta"):
        model = Transformer(imported.config)
    model.load_state_dict(dict(imported.tensors), assign=True)
    return model.eval()


def tokens() -> torch.Tensor:
    return torch.randint(0, 61, (3, 40), generator=torch.Generator().manual_seed(1))


def test_every_format_has_a_reference():
    assert {CASES[case][0] for case in CASES} == {
        "OpenAIGPT", "GPT2", "Llama", "Mistral", "Mixtral", "Qwen2", "Qwen3", "Qwen2Moe", "Qwen3Moe",
        "DeepseekV2",
    }  # fmt: skip
    assert len(FORMATS) == 10


@pytest.mark.parametrize("case", CASES)
def test_logits_are_the_references(folder, case):
    """A published model would answer differently here."""
    path, model = folder(case)
    with torch.no_grad():
        expected = model(tokens()).logits
        got = ours(path)(tokens())
    assert expected.std() > 0.1
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_decoding_with_a_cache_is_the_references_too(folder, case):
    """What is generated would differ from what the reference scores."""
    path, model = folder(case)
    mine = ours(path)
    with torch.no_grad():
        expected = model(tokens()).logits
        cache = mine.new_cache(3)
        parts = []
        for part in tokens().split([13, 1, 1, 4, 21], dim=1):
            view = cache.extend(range(3), [part.shape[1]] * 3)
            parts.append(mine(part.reshape(1, -1), view).view(*part.shape, -1))
    torch.testing.assert_close(torch.cat(parts, 1), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_a_round_trip_changes_no_bit(folder, case, tmp_path):
    """A model that passed through here would come out as another one."""
    path, model = folder(case)
    imported = import_model(path)
    export_model(imported.config, dict(imported.tensors), tmp_path / "out")
    before, after = load_file(path / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name
    again = type(model).from_pretrained(tmp_path / "out", attn_implementation="eager").eval()
    with torch.no_grad():
        assert torch.equal(again(tokens()).logits, model(tokens()).logits)


@pytest.mark.parametrize("case", ["gpt2", "llama", "mixtral", "qwen2_moe", "deepseek_v2"])
def test_loss_and_gradients_of_a_step_are_the_references(folder, case, tmp_path):
    """Training would go elsewhere from the same weights."""
    path, model = folder(case)
    mine = ours(path).train()
    for parameter in mine.parameters():
        parameter.requires_grad_(True)
    loss = F.cross_entropy(mine(tokens())[:, :-1].flatten(0, 1), tokens()[:, 1:].flatten())
    loss.backward()
    model.zero_grad()
    expected = model(tokens(), labels=tokens()).loss
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    # The reference's gradients, taken through its own format into our names.
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.grad)
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
    gradients = dict(import_model(tmp_path).tensors)
    for name, parameter in mine.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-5, rtol=0, msg=name)
        # A bias of all keys alike shifts every score of a query: softmax does not see it.
        if not name.endswith("key.bias"):
            assert gradients[name].abs().max() > 1e-4, f"{name}: a gradient of zeros would prove nothing"


@pytest.mark.parametrize("case", CASES)
def test_sizes_by_arithmetic_are_those_of_the_reference(folder, case):
    path, model = folder(case)
    assert count_parameters(import_model(path).config).total == sum(p.numel() for p in model.parameters())


def test_shards_are_written_and_read(folder, tmp_path):
    """Large models, which come in several files, could not pass."""
    path, model = folder("mixtral")
    imported = import_model(path)
    export_model(imported.config, dict(imported.tensors), tmp_path / "out", max_shard_bytes=20_000)
    shards = sorted(p.name for p in (tmp_path / "out").glob("*.safetensors"))
    assert len(shards) > 3
    assert shards[0] == f"model-00001-of-{len(shards):05}.safetensors"
    assert not list((tmp_path / "out").glob("*.unfinished"))
    with torch.no_grad():
        again = type(model).from_pretrained(tmp_path / "out", attn_implementation="eager").eval()
        assert torch.equal(again(tokens()).logits, model(tokens()).logits)
        assert torch.equal(ours(tmp_path / "out")(tokens()), ours(path)(tokens()))


def test_precision_is_kept(folder, tmp_path):
    """bf16 weights would double, or be rounded twice."""
    path, _ = folder("llama")
    imported = import_model(path)
    halves = {name: tensor.bfloat16() for name, tensor in imported.tensors}
    export_model(imported.config, halves, tmp_path / "out", settings={"eos_token_id": 7})
    assert {t.dtype for _, t in import_model(tmp_path / "out").tensors} == {torch.bfloat16}
    settings = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (settings["torch_dtype"], settings["eos_token_id"], settings["bos_token_id"]) == (
        "bfloat16",
        7,
        None,
    )


def test_old_files_are_understood(folder, tmp_path):
    """GPT-2 as it was first published: bare names, and causal masks among the weights."""
    path, model = folder("gpt2")
    bare = {k.removeprefix("transformer."): v for k, v in load_file(path / "model.safetensors").items()}
    masks = {f"h.{i}.attn.bias": torch.ones(1, 1, 64, 64) for i in range(2)}
    copy = {"lm_head.weight": bare["wte.weight"].clone()}
    save_file({**bare, **masks, **copy}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((path / "config.json").read_bytes())
    with torch.no_grad():
        torch.testing.assert_close(ours(tmp_path)(tokens()), model(tokens()).logits, atol=1e-5, rtol=0)


def altered(path: Path, out: Path, *, settings=None, drop=(), add=None) -> Path:
    """A copy of a folder with other settings, fewer or more tensors."""
    tensors = load_file(path / "model.safetensors")
    tensors = {name: value for name, value in tensors.items() if name not in drop} | (add or {})
    save_file(tensors, out / "model.safetensors")
    config = json.loads((path / "config.json").read_text()) | (settings or {})
    (out / "config.json").write_text(json.dumps(config))
    return out


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"drop": (NORM,)}, f"missing: {NORM}"),
        ({"add": {"model.extra.weight": torch.zeros(2)}}, "unexpected: model.extra.weight"),
        ({"drop": (NORM,), "add": {"model.norm.wieght": torch.zeros(32)}}, "missing: .*unexpected: "),
        ({"add": {NORM: torch.zeros(31)}}, r"model.norm.weight of shape \[31\]"),
        ({"settings": {"num_hidden_layers": 1}}, "unexpected: model.layers.1.input_layernorm.weight"),
        ({"settings": {"num_key_value_heads": 3}}, "not divisible by model.num_kv_heads = 3"),
        ({"settings": {"hidden_size": 33, "head_dim": None}}, "33 is not divisible"),
        ({"settings": {"num_attention_heads": "four"}}, "num_heads"),
        ({"settings": {"hidden_act": "gelu"}}, "hidden_act = 'gelu'"),
        ({"settings": {"attention_bias": True}}, "attention_bias = True"),
        ({"settings": {"rope_parameters": {"rope_type": "longrope", "factor": 4.0}}}, "'longrope'"),
        ({"settings": {"rope_parameters": {"rope_type": "linear"}}}, "'factor' is missing"),
        ({"settings": {"quantization_config": {"bits": 4}}}, "quantized"),
        ({"settings": {"model_type": "gptj", "architectures": ["GPTJLM"]}}, "GPTJ.*supported: .*qwen2"),
        ({"settings": {"architectures": ["LlamaForTokens"]}}, "LlamaForTokens"),
        ({"settings": {"architectures": "LlamaForCausalLM"}}, "'LlamaForCausalLM', not a list of names"),
        (
            {"settings": {"tie_word_embeddings": True}},
            "head and embedding are one, and stores two that differ",
        ),
    ],
)  # fmt: skip
def test_folders_that_are_not_what_they_say_are_refused(folder, tmp_path, changes, said):
    """A model would be read with parts of it missing, or as something else."""
    path, _ = folder("llama")
    with pytest.raises(DataError, match=f"(?s){said}"):
        import_model(altered(path, tmp_path, **changes))


@pytest.mark.parametrize(
    ("case", "settings", "said"),
    [
        ("qwen3_moe", {"mlp_only_layers": [1]}, r"dense layers \[1\]"),
        ("qwen3_moe", {"decoder_sparse_step": 2}, "decoder_sparse_step = 2"),
        ("qwen3_moe", {"use_sliding_window": True}, "use_sliding_window = True"),
        ("qwen2_moe", {"shared_expert_intermediate_size": 33}, "33, which is no multiple"),
        ("qwen2_moe", {"layer_types": ["full_attention", "sliding_attention"]}, "sliding window"),
        ("qwen2_moe", {"num_experts": 7}, r"missing: model\.layers\.0\.mlp\.experts\.6"),
    ],
)
def test_layers_of_experts_that_are_not_supported_are_refused(folder, tmp_path, case, settings, said):
    path, _ = folder(case)
    with pytest.raises(DataError, match=said):
        import_model(altered(path, tmp_path, settings=settings))


def test_code_of_a_folder_is_not_run_and_strange_keys_are_told(folder, tmp_path):
    path, _ = folder("llama")
    (tmp_path / "modeling_evil.py").write_text("raise SystemExit('ran')")
    settings = {"auto_map": {"AutoModelForCausalLM": "modeling_evil.Evil"}, "secret_sauce": 3}
    notices = import_model(altered(path, tmp_path, settings=settings)).notices
    assert any("auto_map" in notice and "not run" in notice for notice in notices)
    assert any("secret_sauce" in notice for notice in notices)
    assert import_model(path).notices == []


def test_pickled_weights_are_never_opened(folder, tmp_path):
    path, _ = folder("llama")
    altered(path, tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"pytorch_model\.bin could run code"):
        import_model(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", None])
def test_a_config_that_cannot_be_read_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(DataError, match=r"config\.json"):
        import_model(tmp_path)


def test_damaged_weights_are_named(folder, tmp_path):
    path, _ = folder("llama")
    altered(path, tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"model\.safetensors cannot be read"):
        import_model(tmp_path)


@pytest.mark.parametrize(
    ("case", "changes", "said"),
    [
        ("gpt2", {"positions": "rope"}, "model.positions = 'rope'"),
        ("gpt2", {"bias": False}, "model.bias = False"),
        ("llama", {"window": 8}, "model.window = 8"),
        ("llama", {"attention_temperature": 2.0}, "attention_temperature"),
        ("qwen2", {"head_width": 16}, "model.head_width = 16"),
        ("llama", {"mup_base_width": 16, "mup_base_head_width": 8}, "model.mup_base_width = 16"),
        ("qwen3_moe", {"window": 4}, "model.window = 4"),
        ("qwen2_moe", {"shared_expert_gate": False}, "model.shared_expert_gate = False"),
    ],
)
def test_parts_that_an_architecture_lacks_are_not_exported(folder, tmp_path, case, changes, said):
    """Others would load the file without a word and compute something else."""
    imported = import_model(folder(case)[0])
    config = imported.config.model_validate({**imported.config.model_dump(), **changes})
    tensors = {name: torch.zeros(shape) for name, shape in parameter_shapes(config).items()}
    with pytest.raises(ConfigError, match=said):
        export_model(config, tensors, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_exports_are_whole_and_overwrite_nothing(folder, tmp_path):
    path, _ = folder("llama")
    imported = import_model(path)
    tensors = dict(imported.tensors)
    with pytest.raises(UsageError, match=r"already holds config\.json"):
        export_model(imported.config, tensors, path)
    del tensors["norm.weight"]
    with pytest.raises(DataError, match=r"missing: norm\.weight"):
        export_model(imported.config, tensors, tmp_path / "out")
    assert not (tmp_path / "out").exists()
