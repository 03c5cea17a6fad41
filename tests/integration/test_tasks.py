"""What is not next-token prediction: encoders, T5, classifiers and students train in the same loop."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from evals.report import write_report
from seedbed.errors import ConfigError, SeedbedError
from seedbed.randomness import generator
from training.checkpoint.models import load_model
from training.loop import fit
from training.metrics import surviving_rows
from training.prepare import start
from training.processes import process_group
from training.trainer import Trainer

RECIPE = """
[run]
steps = 3
[data]
source = "{source}"
vocab_size = 400
tokenizer_kind = "{kind}"
label_field = "folder"
near_duplicate_threshold = 0
holdout_fraction = 0.2
[model]
vocab_size = 0
{model}
[batch]
tokens_per_step = 256
micro_batch_size = 2
[optimizer]
lr = 1e-3
eps = 1e-4
[engine]
precision = "fp32"
threads_per_rank = 1
[eval]
every_steps = 3
num_samples = 5
[tracking]
mlflow = false
"""
SIZES = "num_layers = 2\nwidth = 32\nnum_heads = 4\ncontext = 32\n"
XAVIER = 'initialization = "xavier"\n'
MODELS = {
    "bert": 'family = "bert"\nhead = "pretraining"\n',
    "albert": 'family = "albert"\nhead = "pretraining"\nembedding_width = 16\n',
    "roberta": 'family = "roberta"\nhead = "masked_lm"\n',
    "classifier": 'family = "bert"\nhead = "sequence_classification"\n',
    "t5": 'family = "t5"\nhead_size = 8\n',
    "llama": 'family = "llama"\n',
}


class NeverStopped:
    is_set = False


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for number in range(60):
        draws = generator(number, "text").integers(300, size=(15, 8))
        file = folder / ("left" if number % 3 else "right") / f"{number}.txt"
        file.parent.mkdir(exist_ok=True)
        file.write_text(". ".join(" ".join(f"w{word}" for word in sentence) for sentence in draws))
    return folder


def recipe(folder: Path, source: Path, model: str, sizes: str = SIZES) -> str:
    kind = "byte-bpe" if model in ("t5", "llama") else "wordpiece"
    text = RECIPE.format(source=source, kind=kind, model=MODELS[model] + sizes)
    (folder / f"{model}.toml").write_text(text)
    return str(folder / f"{model}.toml")


def trained(folder: Path, recipe_path: str, name: str, *sets: str, init_from: Path | None = None) -> Path:
    """A finished run of one rank, in this process."""
    run, _ = start(recipe_path, sets, folder / name, init_from)
    with process_group(0, 1, "cpu", folder / f"{name}.rendezvous", 60) as group:
        fit(Trainer(run, group, 0, NeverStopped()))
    return run.path


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in surviving_rows(run) if row["kind"] == "train"]


@pytest.mark.parametrize(
    "model",
    ["bert", "t5", *(pytest.param(name, marks=pytest.mark.long) for name in ("albert", "classifier"))],
)
def test_two_ranks_learn_what_one_does(seedbed_cli, source, tmp_path, model):
    """Otherwise a loss of two means, or a block used twice, would depend on the machine."""
    path = recipe(tmp_path, source, model)
    one = trained(tmp_path, path, "one", "model.dropout=0.0")
    command = ["train", path, "--run-dir", str(tmp_path / "two"), "--set", "engine.num_ranks=2"]
    assert seedbed_cli(*command, "--set", "model.dropout=0.0").code == 0
    assert losses(tmp_path / "two") == pytest.approx(losses(one), rel=1e-5)
    rows = [[r for r in surviving_rows(run) if r["kind"] == "train"] for run in (one, tmp_path / "two")]
    assert [row["data_hash"] for row in rows[0]] == [row["data_hash"] for row in rows[1]]
    weights = [load_model(run).model.state_dict() for run in (one, tmp_path / "two")]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-4, atol=2e-5, msg=name)


def test_validation_tells_the_parts_of_a_loss(source, tmp_path):
    """Otherwise nobody would see that the next sentence is guessed while pieces get better."""
    run = trained(tmp_path, recipe(tmp_path, source, "bert"), "run")
    (row,) = [row for row in surviving_rows(run) if row["kind"] == "eval"]
    assert row["val_loss"] == pytest.approx(row["val_masked_lm"] + row["val_pairs"])
    assert row["val_bits_per_byte"] is None
    assert "Masked lm" in write_report(run).read_text()
    alone = trained(tmp_path, recipe(tmp_path, source, "roberta"), "alone")
    (row,) = [row for row in surviving_rows(alone) if row["kind"] == "eval"]
    assert "val_pairs" not in row


def test_a_classifier_begins_with_a_pretrained_encoder(source, tmp_path):
    """Otherwise pretraining would be lost, or a classifier would silently keep a pretraining head."""
    pretrained = trained(tmp_path, recipe(tmp_path, source, "bert"), "pretrained")
    path = recipe(tmp_path, source, "classifier")
    run, told = start(path, ["optimizer.lr=1e-12", "run.steps=1"], tmp_path / "tuned", pretrained)
    assert any("begun afresh: classifier.bias, classifier.weight" in line for line in told)
    with process_group(0, 1, "cpu", tmp_path / "tuned.rendezvous", 60) as group:
        fit(Trainer(run, group, 0, NeverStopped()))
    before, after = (load_model(where).model.state_dict() for where in (pretrained, run.path))
    shared = before.keys() & after.keys()
    assert len(shared) == len(after) - 2
    for name in shared:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-9)
    (row,) = [row for row in surviving_rows(run.path) if row["kind"] == "eval"]
    assert 0 <= row["val_accuracy"] <= 1
    labels = json.loads((run.path / "checkpoints" / "step-1" / "labels.json").read_text())
    assert labels == ["left", "right"]


def test_weights_that_are_read_otherwise_are_told(source, tmp_path):
    """Another number of heads has the same shapes, and makes of the same weights another model."""
    pretrained = trained(tmp_path, recipe(tmp_path, source, "bert"), "pretrained")
    path = recipe(tmp_path, source, "classifier")
    _, told = start(path, ["model.num_heads=2"], tmp_path / "tuned", pretrained)
    assert any("model.num_heads was 4, is 2" in line for line in told)


def test_another_encoder_is_refused(source, tmp_path):
    """Only heads may differ: half of an encoder would look like a pretrained one."""
    pretrained = trained(tmp_path, recipe(tmp_path, source, "bert"), "pretrained")
    wider = recipe(tmp_path, source, "classifier", SIZES.replace("width = 32", "width = 64"))
    with pytest.raises(ConfigError, match="does not fit"):
        start(wider, [], tmp_path / "tuned", pretrained)


def test_a_student_learns_from_a_run(source, tmp_path):
    """Otherwise distillation would exist in a library only."""
    teacher = trained(tmp_path, recipe(tmp_path, source, "llama"), "teacher")
    sizes = SIZES.replace("width = 32", "width = 16")
    path = recipe(tmp_path, source, "llama", sizes)
    sets = ["objective.name=distillation", f"objective.teacher={teacher}", "objective.soft_share=1.0"]
    student = trained(tmp_path, path, "student", *sets)
    alone = trained(tmp_path, path, "alone")
    assert losses(student)[0] != losses(alone)[0]
    identity = json.loads((student / "recipe.json").read_text())["identity"]
    assert len(identity["objective.teacher.hash"]) == 64


@pytest.mark.parametrize("model", ["classifier", "t5"])
def test_export_and_import_give_the_same_model(seedbed_cli, source, tmp_path, model):
    """Otherwise what was trained here could not be used elsewhere, nor come back."""
    run = trained(tmp_path, recipe(tmp_path, source, model, SIZES + ("" if model == "t5" else XAVIER)), "run")
    assert seedbed_cli("export", str(run), str(tmp_path / "hf")).code == 0
    assert seedbed_cli("import", str(tmp_path / "hf"), str(tmp_path / "back")).code == 0
    before, after = load_model(run).model.state_dict(), load_model(tmp_path / "back").model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    if model == "classifier":
        assert seedbed_cli("export", str(tmp_path / "back"), str(tmp_path / "again")).code == 0
        for folder in ("hf", "again"):
            written = json.loads((tmp_path / folder / "config.json").read_text())
            assert written["id2label"] == {"0": "left", "1": "right"}


@pytest.mark.parametrize(
    ("model", "setting", "said"),
    [
        ("bert", "model.head=span", "no objective trains model.head"),
        ("bert", "objective.name=causal_lm", "does not train a bert"),
        ("bert", "eval.prompt=Once", "eval.prompt = 'Once' does nothing for"),
        ("bert", "order.packing=best-fit", "does nothing for the objective masked_lm of a bert"),
        ("bert", "model.context=4", "too short for"),
        ("bert", "model.num_segments=1", "num_segments"),
        ("bert", "order.within_documents=true", "order.within_documents"),
        ("bert", "objective.num_chunks=8", "objective.num_chunks"),
        ("classifier", "model.context=2", "no room for text"),
        ("t5", "model.context=2048 batch.tokens_per_step=4096", "sentinels"),
        ("llama", "objective.teacher=somewhere", "objective.teacher"),
        ("bert", "objective.pairs=none", "does not go with model.head"),
        ("t5", "objective.name=masked_lm", "does not train a t5"),
        ("llama", "objective.balance_loss=0.01", "this llama has none"),
        ("llama", "objective.name=distillation", "needs a teacher"),
        ("llama", "model.family=lama", "did you mean 'llama'"),
        ("classifier", "model.num_labels=7", "the data have 2 labels"),
        ("classifier", "data.label_field=", "nothing to tell apart"),
        ("classifier", "objective.min_documents_per_label=30", "nothing to tell apart"),
        ("classifier", "data.tokenizer_kind=byte-bpe", "BERT samples cannot be made"),
    ],
)
def test_what_does_not_go_together_is_refused(source, tmp_path, model, setting, said):
    """Before a machine is taken, with the setting and what to do."""
    with pytest.raises(SeedbedError, match=re.escape(said)) as raised:
        start(recipe(tmp_path, source, model), setting.split(), tmp_path / "run")
    assert raised.value.exit_code in (2, 3)
    assert raised.value.fix
    assert not (tmp_path / "run").exists()


def test_a_classifier_of_other_labels_begins_with_a_head_of_its_own(source, tmp_path):
    """Otherwise a label would be scored by the row of another that had its number."""
    first = trained(tmp_path, recipe(tmp_path, source, "classifier"), "first")
    renamed = tmp_path / "renamed"
    for name, other in (("left", "above"), ("right", "below")):
        shutil.copytree(source / name, renamed / other)
    path = recipe(tmp_path, renamed, "classifier")
    tokenizer = next((first / "checkpoints").glob("step-*/tokenizer.json"))
    _, told = start(path, [f"data.tokenizer={tokenizer}"], tmp_path / "second", first)
    assert any("begun afresh: classifier.bias, classifier.weight" in line for line in told)
    _, told = start(recipe(tmp_path, source, "classifier"), [], tmp_path / "third", first)
    assert not any("begun afresh" in line for line in told)
    assert any("60 of 60 documents have one of 2 labels" in line for line in told)


def test_a_teacher_of_other_tokens_is_refused(source, tmp_path):
    """Otherwise a student would be taught the probabilities of other text."""
    teacher = trained(tmp_path, recipe(tmp_path, source, "llama"), "teacher")
    others = tmp_path / "others"
    others.mkdir()
    for number in range(40):
        draws = generator(number, "other").integers(97, 123, size=(80, 6))
        (others / f"{number}.txt").write_text(" ".join("".join(map(chr, word)) for word in draws))
    sets = ["objective.name=distillation", f"objective.teacher={teacher}"]
    with pytest.raises(ConfigError, match="another tokenizer"):
        start(recipe(tmp_path, others, "llama"), sets, tmp_path / "student")


def test_a_roberta_counts_positions_from_its_tokenizers_padding(seedbed_cli, source, tmp_path):
    """Otherwise an exported model would be another one for texts with an unknown word."""
    run = trained(tmp_path, recipe(tmp_path, source, "roberta"), "run")
    loaded = load_model(run)
    assert loaded.config.model.pad_id == 0
    assert seedbed_cli("export", str(run), str(tmp_path / "hf")).code == 0
    from transformers import AutoModelForMaskedLM

    theirs = AutoModelForMaskedLM.from_pretrained(tmp_path / "hf").eval()
    tokens = torch.tensor([[2, 40, 1, 50, 60, 1, 70, 3]])
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(tokens), theirs(tokens).logits, rtol=0, atol=1e-5)
