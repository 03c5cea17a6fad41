"""Every shipped recipe is read, sized and planned as it stands, and run for two steps when shrunken."""

import json
import math

import pytest

from models.families import count_parameters, parameter_shapes
from seedbed.randomness import generator
from tests.one_rank import train
from training.metrics import surviving_rows
from training.objectives.preference import WITH_REFERENCE
from training.prepare import planned, sized, start
from training.recipes import description_of, load_config, recipe_names
from training.rl.settings import ALGORITHMS

PARAMETERS = {
    "gpt2-124m": 124_439_808,
    "gpt2-1.5b": 1_557_611_200,
    "llama-8b": 8_030_261_248,
    # With the heads of its two tasks: 109,482,240 without.
    "bert-base": 109_482_240 + 768 * 768 + 768 + 2 * 768 + 30_522 + 2 * 768 + 2,
    "t5-small": 60_506_624,
}

SMALLER = {
    "run.steps": 2,
    "data.hf_config": "",
    "data.near_duplicate_threshold": 0,
    "data.holdout_fraction": 0.2,
    "data.tokenizer": "",
    "data.vocab_size": 400,
    "model.num_layers": 2,
    "model.width": 32,
    "model.num_heads": 4,
    "model.mlp_width": 48,
    "model.context": 32,
    "model.vocab_size": 0,
    "batch.tokens_per_step": 128,
    "batch.micro_batch_size": 2,
    "engine.num_ranks": 1,
    "engine.precision": "fp32",
    "eval.every_steps": 2,
    "eval.num_samples": 4,
    "tracking.mlflow": "false",
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Two folders of texts, which are their labels."""
    folder = tmp_path_factory.mktemp("corpus")
    for number in range(60):
        words = generator(number, "text").integers(300, size=120)
        text = ". ".join(" ".join(f"w{word}" for word in words[i : i + 8]) for i in range(0, 120, 8))
        file = folder / ("left" if number % 2 else "right") / f"{number}.txt"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    return folder


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """What recipes for examples read, by data.format: a folder of Python, a file of comparisons."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "python").mkdir()
    for number in range(40):
        body = f'def f{number}(x):\n    """Add."""\n    return x + {number}\n'
        (folder / "python" / f"{number}.py").write_text(body)
    rows = [{"prompt": f"p{n}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(60)]
    (folder / "comparisons.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = [{"prompt": f"p{n}", "response": f" good {n}"} for n in range(60)]
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    return {
        "python-functions": folder / "python",
        "preference": folder / "comparisons.jsonl",
        "prompt-response": folder / "answers.jsonl",
    }


def shrunken(name, corpus, examples):
    config = load_config(name)
    kind = "wordpiece" if config.model.family == "bert" else "byte-bpe"
    values = {**SMALLER, "data.source": corpus, "data.tokenizer_kind": kind}
    if config.model.family == "t5":
        values["model.head_size"] = 8
    else:
        values["model.num_kv_heads"] = min(2, getattr(config.model, "num_kv_heads", 0))
    if config.model.family == "bert":
        del values["model.num_kv_heads"]
    if config.objective.name == "classification" or config.objective.min_documents_per_label > 1:
        values["objective.min_documents_per_label"] = 2
    if config.data.format != "text":
        values["data.source"] = examples[config.data.format]
    if config.objective.name in ALGORITHMS:
        values |= {"rl.prompts": 2, "rl.answers": 2, "rl.max_new_tokens": 8, "eval.every_steps": 0}
        # What it names is made by other recipes.
        values |= {"rl.rewards": '["python"]', "rl.critic": ""}
    return [f"{key}={value}" for key, value in values.items()]


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_is_planned_as_it_stands(name, tmp_path):
    """Otherwise a recipe for a cluster would fail there, or cost other than was said."""
    config = sized(load_config(name))
    assert description_of(name)
    count = count_parameters(config.model)
    assert count.total == sum(math.prod(shape) for shape in parameter_shapes(config.model).values())
    assert count.total == PARAMETERS.get(name, count.total)
    assert config.data.source == "stdlib" or config.data.holds_examples or config.model.vocab_size
    assert config.engine.num_ranks <= config.batch.tokens_per_step // config.model.context


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_trains(name, corpus, examples, tmp_path, monkeypatch):
    """Otherwise its parts would not fit together when the machines are paid for."""
    monkeypatch.setenv("SEEDBED_CACHE", str(tmp_path / "cache"))
    init_from = None
    objective = load_config(name).objective.name
    if objective in WITH_REFERENCE or objective in ALGORITHMS:
        before = {"randomwalks": "randomwalks-sft", "grpo-arithmetic": "arithmetic-sft"}.get(name, "sft-demo")
        first, _ = start(before, shrunken(before, corpus, examples), tmp_path / "first")
        train(first, tmp_path / "first.rendezvous")
        init_from = first.path
    run, _ = start(name, shrunken(name, corpus, examples), tmp_path / "run", init_from)
    train(run, tmp_path / "rendezvous")
    rows = surviving_rows(run.path)
    assert [row["step"] for row in rows if row["kind"] == "train"] == [1, 2]
    assert all(math.isfinite(row["loss"]) for row in rows if row["kind"] == "train")
    measured = {row["kind"]: row.get("val_loss", row.get("reward")) for row in rows}
    assert math.isfinite(measured["rollouts" if objective in ALGORITHMS else "eval"])
    plan = planned(run.config(), tmp_path)
    assert plan["memory_bytes_per_device"]["activations"] > 0
