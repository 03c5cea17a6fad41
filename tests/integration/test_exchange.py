"""Models come from and go to Hugging Face folders by the command line, bit for bit."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from data.tokenizers import train_tokenizer
from seedbed.errors import DataError, UsageError
from tests.integration.test_eval_probes import TASK
from training.checkpoint.exchange import export_checkpoint, import_checkpoint
from training.checkpoint.layout import resolve
from training.checkpoint.reader import Checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A random Llama as `transformers` saves it, in bf16, with a tokenizer and a chat template."""
    from transformers import LlamaConfig, LlamaForCausalLM

    path = tmp_path_factory.mktemp("hf") / "llama"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(path)
    (path / "tokenizer.json").write_bytes(
        train_tokenizer(iter(["some text to learn from " * 9]), 300).to_bytes()
    )
    (path / "chat_template.jinja").write_text("{{ messages }}")
    return path


def test_a_folder_comes_in_and_goes_out_unchanged(folder, tmp_path, seedbed_cli):
    """Otherwise a published model would be another one after a visit here."""
    outcome = seedbed_cli("import", str(folder), "model", "--json")
    assert outcome.code == 0, outcome.stderr
    assert json.loads(outcome.stdout)["checkpoint"].endswith("step-0")
    generated = seedbed_cli("generate", "model", "--prompt", "some text", "--max-tokens", "5", "--json")
    assert generated.code == 0, generated.stderr
    assert seedbed_cli("checkpoint", "verify", "model").code == 0
    outcome = seedbed_cli("export", "model", "back")
    assert outcome.code == 0, outcome.stderr
    with pytest.raises(UsageError, match="no averages of weights"):
        export_checkpoint(tmp_path / "model", tmp_path / "averaged", ema=True)
    before, after = (
        load_file(folder / "model.safetensors"),
        load_file(tmp_path / "back" / "model.safetensors"),
    )
    assert before.keys() == after.keys()
    for name, values in before.items():
        assert values.dtype == after[name].dtype
        assert torch.equal(values, after[name]), name
    assert (tmp_path / "back" / "chat_template.jinja").read_text() == "{{ messages }}"
    assert (tmp_path / "back" / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_a_trained_run_opens_in_transformers(tmp_path, seedbed_cli):
    """Otherwise what is grown here could not be used anywhere else."""
    from transformers import AutoModelForCausalLM

    small = {"run.steps": 2, "model.num_layers": 1, "model.width": 32, "model.num_heads": 2}
    small |= {
        "model.num_kv_heads": 2,
        "tracking.mlflow": "false",
        "eval.every_steps": 0,
        "engine.num_ranks": 1,
        "optimizer.ema_decay": 0.5,
    }
    sets = [part for key, value in small.items() for part in ("--set", f"{key}={value}")]
    assert seedbed_cli("train", "gpt-demo", "--run-dir", "r", *sets).code == 0
    outcome = seedbed_cli("export", "r", "hf")
    assert outcome.code == 0, outcome.stderr
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    assert model.config.num_hidden_layers == 1
    assert torch.isfinite(model(torch.tensor([[1, 2, 3]])).logits).all()
    outcome = seedbed_cli("export", "r", "averaged", "--ema")
    assert outcome.code == 0, outcome.stderr
    stored = Checkpoint.open(resolve(tmp_path / "r"))
    for name, kind in (("hf", "model"), ("averaged", "ema")):
        exported = load_file(tmp_path / name / "model.safetensors")
        weights = stored.read(f"{kind}/embedding.weight")
        assert any(torch.equal(values, weights) for values in exported.values())
    assert not torch.equal(stored.read("ema/embedding.weight"), stored.read("model/embedding.weight"))


def test_what_cannot_be_imported_is_named(folder, tmp_path, seedbed_cli):
    """Otherwise half a model, or another one, would be trained on."""
    other = tmp_path / "other"
    other.mkdir()
    for file in folder.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"model_type": "mamba"}))
    outcome = seedbed_cli("import", str(other), "model")
    assert outcome.code in (2, 3)
    assert "mamba" in outcome.stderr
    assert "llama" in outcome.stderr, "and what is supported"
    assert not (tmp_path / "model").exists()


def test_a_special_token_without_an_id_is_refused(folder, tmp_path):
    """Otherwise its id would lie beyond the embedding, and fail in the middle of a run."""
    for name in ("eos_token", "pad_token"):
        (folder / "tokenizer_config.json").write_text(json.dumps({name: {"content": "<|nowhere|>"}}))
        with pytest.raises(DataError, match=f"nowhere.* as its {name}, which is not in the vocabulary"):
            import_checkpoint(folder, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": "<|endoftext|>", "bos_token": None})
    )
    import_checkpoint(folder, tmp_path / "model")
    (folder / "tokenizer_config.json").unlink()


def test_a_folder_is_asked_the_tasks_that_its_import_is(folder, tmp_path, seedbed_cli):
    """As it is, by its own library; and all steps of a run, one after another."""
    rows = [
        {"ind": n, "ctx": f"some text {n}", "endings": ["to", "learn", "from", str(n)], "label": n % 4}
        for n in range(12)
    ]
    lines = [json.dumps({**row, "activity_label": "x", "source_id": "s"}) + "\n" for row in rows]
    (tmp_path / "items.jsonl").write_text("".join(lines))
    (tmp_path / "words.toml").write_text(TASK)
    import_checkpoint(folder, tmp_path / "run")
    asked = ("--tasks", tmp_path / "words.toml")
    theirs = seedbed_cli("eval", folder, *asked, "--json")
    assert theirs.code == 0, theirs.stderr
    ours = seedbed_cli("eval", tmp_path / "run", *asked, "--all-steps", "--json")
    assert ours.code == 0, ours.stderr
    found = [json.loads(one.stdout)["tasks"]["words"] for one in (theirs, ours)]
    for name, metric in found[1]["metrics"].items():
        assert found[0]["metrics"][name]["value"] == pytest.approx(metric["value"], abs=1e-4), name
    history = json.loads(ours.stdout)["history"]["words"]
    assert [(row["step"], row["value"]) for row in history] == [(0, found[1]["value"])]
    refused = seedbed_cli("eval", folder, *asked, "--ranks", "2")
    assert (refused.code, "--ranks is for runs" in refused.stderr) == (2, True), refused.stderr
