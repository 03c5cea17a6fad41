"""From pretraining to fine-tuning, rewards and preferences: real runs of small models."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from data.build import build_dataset
from data.config import DataConfig
from data.examples.table import ExampleTable
from data.shards import Dataset
from evals.preferences import preference_scores
from evals.results import evaluate
from seedbed.errors import ConfigError, UsageError
from tests.one_rank import train
from training.checkpoint.layout import step_dir
from training.checkpoint.models import load_model
from training.checkpoint.reader import Checkpoint
from training.metrics import surviving_rows
from training.prepare import resume, start
from training.rewards.normalization import normalize
from training.rewards.scoring import RewardScorer

RECIPE = """
[run]
steps = {steps}
[data]
path = "{data}"
{order}
[objective]
name = "{objective}"
{settings}
[model]
family = "llama"
num_layers = 2
width = 32
num_heads = 4
context = 48
{model}
[batch]
tokens_per_step = 384
micro_batch_size = 2
[optimizer]
lr = 3e-3
{optimizer}
[schedule]
name = "constant"
warmup_share = 0
[engine]
precision = "fp32"
threads_per_rank = 1
{engine}
[checkpoint]
every_steps = 4
[eval]
every_steps = {steps}
num_samples = 40
[tracking]
mlflow = false
"""
PYTHON_WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]


def sentence(number):
    return " ".join(PYTHON_WORDS[(number * 7 + place * 3) % 8] for place in range(4))


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, Path]:
    """Running text, conversations and preferences of one tokenizer."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "text.txt").write_text("\n\n".join(f"{sentence(n)}. Number {n}." * 3 for n in range(150)))
    text = build_dataset(
        DataConfig(
            source=str(folder / "text.txt"), vocab_size=300, near_duplicate_threshold=0, holdout_fraction=0.2
        ),
        folder / "text",
    )
    common = {"tokenizer": str(text), "template": "zephyr", "holdout_fraction": 0.2}
    chats = [
        {
            "messages": [
                {"role": "user", "content": sentence(n)},
                {"role": "assistant", "content": sentence(n + 1)},
            ]
        }
        for n in range(120)
    ]
    (folder / "chats.jsonl").write_text(lines(chats))
    sft = build_dataset(
        DataConfig(source=str(folder / "chats.jsonl"), format="messages", **common), folder / "sft"
    )
    pairs = [
        {
            "prompt": f"{sentence(n)} {n}",
            "chosen": f"alpha {sentence(n)}",
            "rejected": f"beta {sentence(n + 2)}",
        }
        for n in range(160)
    ]
    (folder / "pairs.jsonl").write_text(lines(pairs))
    config = DataConfig(source=str(folder / "pairs.jsonl"), format="preference", **common)
    return {"text": text, "sft": sft, "pairs": build_dataset(config, folder / "pairs")}


def recipe(folder, data, objective, name="recipe", **parts):
    parts = {"steps": 8, "order": "", "settings": "", "model": "", "optimizer": "", "engine": "", **parts}
    path = folder / f"{name}.toml"
    path.write_text(RECIPE.format(data=data, objective=objective, **parts))
    return str(path)


def trained(folder: Path, path: str, name: str, *sets: str, init_from: Path | None = None) -> Path:
    """A finished run of one rank, in this process."""
    run, _ = start(path, sets, folder / name, init_from)
    train(run, folder / f"{name}.rendezvous")
    return run.path


def rows(run, kind="train"):
    return [row for row in surviving_rows(run) if row["kind"] == kind]


def losses(run):
    return [row["loss"] for row in rows(run)]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory, data) -> Path:
    folder = tmp_path_factory.mktemp("pretrained")
    return trained(folder, recipe(folder, data["text"], "causal_lm"), "run")


def test_fine_tuning_resumes_to_the_bit_and_says_what_it_leaves_out(data, pretrained, tmp_path):
    """Several epochs: a resumed run would otherwise repeat some examples and miss others."""
    path = recipe(tmp_path, data["sft"], "sft", steps=16)
    run, told = start(path, [], tmp_path / "whole", pretrained)
    assert any("examples in" in line and "filled" in line for line in told)
    train(run, tmp_path / "a")
    assert rows(run.path)[-1]["epoch"] > 2
    assert np.mean(losses(run.path)[-4:]) < np.mean(losses(run.path)[:4]) - 0.3
    first = trained(tmp_path, path, "cut", "run.steps=7", init_from=pretrained)
    again, _ = resume(first, ["run.steps=16", "eval.every_steps=16"])
    train(again, tmp_path / "b")
    assert [row["data_hash"] for row in rows(first)] == [row["data_hash"] for row in rows(run.path)]
    hashes = [Checkpoint.open(step_dir(one, 16)).hash(optimizer=True) for one in (run.path, first)]
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize(
    ("objective", "name"),
    [
        ("sft", "sft"),
        *(pytest.param(objective, "pairs", marks=pytest.mark.long) for objective in ("dpo", "reward", "kto")),
    ],
)
def test_two_ranks_learn_what_one_does(seedbed_cli, data, pretrained, tmp_path, objective, name):
    """Otherwise a curve would depend on the machine that it was made on."""
    model = 'head = "reward"' if objective == "reward" else ""
    path = recipe(tmp_path, data[name], objective, model=model, steps=4)
    one = trained(tmp_path, path, "one", init_from=pretrained)
    command = ["train", path, "--run-dir", str(tmp_path / "two"), "--set", "engine.num_ranks=2"]
    outcome = seedbed_cli(*command, "--init-from", str(pretrained))
    assert outcome.code == 0, outcome.stderr
    assert losses(tmp_path / "two") == pytest.approx(losses(one), rel=2e-5)
    assert [row["data_hash"] for row in rows(tmp_path / "two")] == [row["data_hash"] for row in rows(one)]
    weights = [load_model(run).model.state_dict() for run in (one, tmp_path / "two")]
    for key, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][key], rtol=1e-3, atol=1e-4, msg=key)


@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
@pytest.mark.parametrize("trained_part", ["head", "last:1"])
def test_what_is_frozen_stays_to_the_bit(data, pretrained, tmp_path, engine, trained_part):
    """A frozen layer that drifts is not what was asked, and a resume must know what has no state."""
    path = recipe(
        tmp_path,
        data["sft"],
        "sft",
        optimizer=f'trained = "{trained_part}"',
        engine=f'name = "{engine}"',
        steps=4,
    )
    run = trained(tmp_path, path, "run", init_from=pretrained)
    before, after = (load_model(one).model.state_dict() for one in (pretrained, run))
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    expected = {"norm.weight", "head.weight"}
    if trained_part == "last:1":
        expected |= {name for name in after if name.startswith("blocks.1.")}
    assert moved == expected
    state = {name.split("/")[1] for name in Checkpoint.open(step_dir(run, 4)).names("optimizer/")}
    assert state - {"step"} == expected
    again, _ = resume(run, ["run.steps=6"])
    train(again, tmp_path / "again")
    assert len(losses(run)) == 6


@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
def test_adapters_learn_alone_and_are_merged_or_published(data, pretrained, tmp_path, seedbed_cli, engine):
    """The base would drift under its adapter, and what is scored would not be what was trained."""
    path = recipe(
        tmp_path, data["sft"], "sft", steps=8, optimizer='trained = "lora"', engine=f'name = "{engine}"',
        model="lora_rank = 4\nlora_dropout = 0.1",
    )  # fmt: skip
    run = trained(tmp_path, path, "run", init_from=pretrained)
    assert np.mean(losses(run)[-2:]) < losses(run)[0]
    sides = [Checkpoint.open(step_dir(one, 8)) for one in (pretrained, run)]
    shapes = {name: tuple(sides[0].manifest["tensors"][name]["shape"]) for name in sides[0].names("model/")}
    for name, shape in shapes.items():
        assert torch.equal(*(side.read(name, shape) for side in sides)), name
    state = {name.split("/")[1] for name in sides[1].names("optimizer/")} - {"step"}
    assert state
    assert all(name.endswith((".lora_A", ".lora_B")) for name in state)
    merged = load_model(run)
    assert merged.config.model.lora_rank == 0
    assert not any(".lora_" in name for name, _ in merged.model.named_parameters())
    again, _ = resume(run, ["run.steps=9"])
    train(again, tmp_path / "again")
    for flags, file in ((["--adapter"], "adapter_model.safetensors"), ([], "model.safetensors")):
        outcome = seedbed_cli("export", run, tmp_path / file, *flags)
        assert outcome.code == 0, outcome.stderr
        assert (tmp_path / file / file).is_file()
    with pytest.raises(ConfigError, match="has adapters, and the model that is asked for has none"):
        start(recipe(tmp_path, data["sft"], "sft", "plain"), [], tmp_path / "plain", run)


def test_adapters_learn_on_a_base_in_four_bits(data, pretrained, tmp_path):
    """A run that went back would go on from another base; the merged model is one like any other."""
    model, only = 'lora_rank = 4\nlora_base = "nf4"', 'trained = "lora"'
    path = recipe(
        tmp_path, data["sft"], "sft", steps=6, optimizer=only, engine='name = "ddp"', model=model
    )  # fmt: skip
    run = trained(tmp_path, path, "run", init_from=pretrained)
    assert np.mean(losses(run)[-2:]) < losses(run)[0]
    first, last = (Checkpoint.open(step_dir(run, step)) for step in (4, 6))
    name = "model/blocks.0.attention.query.weight"
    shape = tuple(first.manifest["tensors"][name]["shape"])
    base = first.read(name, shape)
    assert torch.equal(base, last.read(name, shape))
    before = Checkpoint.open(step_dir(pretrained, 8)).read(name, shape)
    assert 0 < (base - before).abs().mean() < 0.2 * before.abs().mean()
    rest, _ = resume(run, [], from_step=4)
    train(rest, tmp_path / "again")
    assert Checkpoint.open(step_dir(run, 6)).hash() == last.hash()
    assert load_model(run).config.model.lora_base == "full"
    with pytest.raises(ConfigError, match=r'lora_base = "nf4" is for engine.name = "ddp"'):
        start(path, ["engine.name=fsdp"], tmp_path / "other", pretrained)


def test_running_text_is_mixed_in(data, pretrained, tmp_path):
    path = recipe(tmp_path, "", "sft", steps=6)
    paths = f'data.paths={{chat="{data["sft"]}", text="{data["text"]}"}}'
    run = trained(tmp_path, path, "run", paths, "order.weights={chat=0.75, text=0.25}", init_from=pretrained)
    assert set(rows(run)[-1]["epoch"]) == {"chat", "text"}
    assert all(math.isfinite(loss) for loss in losses(run))


@pytest.mark.parametrize("objective", ["dpo", "ipo", "kto", "orpo", "simpo"])
def test_direct_methods_prefer_the_preferred(data, pretrained, tmp_path, objective):
    """From the first step on: a policy that has not moved has the loss of indifference."""
    path = recipe(tmp_path, data["pairs"], objective, steps=12)
    run = trained(tmp_path, path, "run", init_from=pretrained)
    if objective == "dpo":
        assert losses(run)[0] == pytest.approx(math.log(2), abs=1e-5)
    assert np.mean(losses(run)[-3:]) < losses(run)[0]
    (row,) = rows(run, "eval")
    if objective != "kto":
        assert row["val_accuracy"] > 0.9
    else:
        assert row["val_good_moved"] > row["val_bad_moved"]


def test_the_reference_is_asked_once_and_proved(data, pretrained, tmp_path, monkeypatch):
    """Its log-probabilities cost a pass over the data; damaged, they would bend the loss unseen."""
    import training.reference as module

    monkeypatch.setenv("SEEDBED_CACHE", str(tmp_path / "cache"))
    path = recipe(tmp_path, data["pairs"], "dpo", steps=2)
    first = trained(tmp_path, path, "first", init_from=pretrained)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_computed", lambda *_: pytest.fail("computed again"))
        second = trained(tmp_path, path, "second", init_from=pretrained)
    assert losses(first) == losses(second)
    for file in (tmp_path / "cache" / "references").rglob("*.f32"):
        content = bytearray(file.read_bytes())
        content[5] ^= 64
        file.write_bytes(content)
    assert losses(trained(tmp_path, path, "third", init_from=pretrained)) == losses(first)


def test_rewards_are_learned_judged_normalised_and_put_together(data, pretrained, tmp_path):
    """From comparisons to a number that a policy can be trained on."""
    runs = []
    for seed in (0, 1):
        path = recipe(tmp_path, data["pairs"], "reward", f"rm{seed}", model='head = "reward"', steps=12)
        runs.append(trained(tmp_path, path, f"rm{seed}", f"run.seed={seed}", init_from=pretrained))
    result = evaluate(runs[0], ["preferences"])["tasks"]["preferences"]
    assert result["value"] > 0.95
    assert result["low"] < result["value"] <= result["high"]
    assert 0.2 < result["length_baseline"]["value"] < 0.9
    assert result["calibration"]["ece_after"] is not None
    dataset = Dataset.open(data["pairs"])
    table = ExampleTable.of(dataset, "train")
    sequences = [table.tokens(s) for s in range(table.num_sequences)]
    both = RewardScorer(runs)
    members = both.by_member(sequences)
    np.testing.assert_allclose(both.score(sequences), members.mean(0))
    np.testing.assert_allclose(RewardScorer(runs, how="worst").score(sequences), members.min(0))
    alone = [RewardScorer([runs[0]]).score([one])[0] for one in sequences[:5]]
    np.testing.assert_allclose(members[0, :5], alone, atol=1e-5)
    normalize(runs[0], tmp_path / "normal", sequences)
    rewards = RewardScorer([tmp_path / "normal"]).score(sequences)
    assert rewards.mean() == pytest.approx(0, abs=1e-4)
    assert rewards.var() == pytest.approx(1, abs=1e-3)
    assert preference_scores(RewardScorer([tmp_path / "normal"]), dataset)["value"] == result["value"]
    with pytest.raises(UsageError, match="does not write text"):
        load_model(runs[0]).decoder()
    with pytest.raises(UsageError, match="is no reward model"):
        RewardScorer([pretrained])


def test_an_encoder_gives_rewards_too(tmp_path):
    rows_ = [{"prompt": sentence(n), "chosen": f"alpha {n}", "rejected": f"beta {n}"} for n in range(80)]
    (tmp_path / "pairs.jsonl").write_text(lines(rows_))
    common = {"source": str(tmp_path / "pairs.jsonl"), "format": "preference", "tokenizer_kind": "wordpiece"}
    common |= {"vocab_size": 300, "holdout_fraction": 0.2}
    plain = build_dataset(DataConfig(**common, template="plain"), tmp_path / "plain")
    text = RECIPE.replace('family = "llama"', 'family = "bert"\ndropout = 0.0\nattention_dropout = 0.0')
    parts = {
        "steps": 8,
        "order": "",
        "settings": "",
        "model": 'head = "reward"',
        "optimizer": "",
        "engine": "",
    }
    (tmp_path / "bert.toml").write_text(text.format(data=plain, objective="reward", **parts))
    run = trained(tmp_path, str(tmp_path / "bert.toml"), "run")
    assert losses(run)[-1] < losses(run)[0]
    other = build_dataset(DataConfig(**common, template="zephyr"), tmp_path / "zephyr")
    with pytest.raises(ConfigError, match=r"do not begin with \[CLS\]"):
        start(str(tmp_path / "bert.toml"), [f"data.path={other}"], tmp_path / "other")


def test_settings_that_do_not_go_together_are_refused(data, pretrained, tmp_path):
    """Each would otherwise be ignored, or end a run that machines were taken for."""
    wrong = [
        (recipe(tmp_path, data["text"], "sft", "a"), None, "learns from examples"),
        (recipe(tmp_path, data["sft"], "dpo", "b"), pretrained, 'data.format = "messages"'),
        (recipe(tmp_path, data["pairs"], "dpo", "c"), None, "there is none"),
        (recipe(tmp_path, data["pairs"], "reward", "d"), None, "does not train a llama"),
        (recipe(tmp_path, data["sft"], "sft", "e", settings="beta = 0.2"), None, "beta = 0.2 does nothing"),
        (recipe(tmp_path, data["sft"], "sft", "f", model='head = "reward"'), None, "does not train a llama"),
        (recipe(tmp_path, data["sft"], "sft", "g", optimizer='trained = "last:9"'), None, "has 2 blocks"),
    ]
    for path, init_from, message in wrong:
        with pytest.raises(ConfigError, match=message):
            start(path, [], tmp_path / "run", init_from)
    zero = recipe(tmp_path, data["sft"], "sft", "z", optimizer='trained = "head"', engine='name = "zero1"')
    with pytest.raises(ConfigError, match=r"set engine\.name to fsdp or ddp"):
        start(zero, [], tmp_path / "run")
