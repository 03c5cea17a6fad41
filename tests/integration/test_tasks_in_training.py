"""Tasks asked while a run goes on: of a model on two ranks, at every validation, and never again by hand."""

import json

import pytest

from seedbed.errors import SeedbedError
from tests.integration.test_evaluate import build, write_texts
from training.metrics import surviving_rows
from training.prepare import start


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    return build(write_texts(folder / "text"), folder / "set")


def settings(dataset, **more):
    asked = {
        "data.path": dataset, "run.steps": 4, "model.num_layers": 1, "model.width": 16, "model.num_heads": 2,
        "model.context": 32, "batch.micro_batch_size": 2, "batch.tokens_per_step": 128,
        "eval.every_steps": 2, "eval.num_samples": 8, "eval.prompt": "", "eval.task_items": 8,
        "tracking.mlflow": "false", **more,
    }  # fmt: skip
    return [part for key, value in asked.items() for part in ("--set", f"{key}={value}")]


def test_a_model_is_asked_on_its_ranks_what_it_is_asked_from_its_checkpoint(seedbed_cli, tmp_path, dataset):
    ranks = {"engine.num_ranks": 2, "engine.name": "fsdp", "eval.tasks": '["cloze", "stdlib-text"]'}
    outcome = seedbed_cli("train", "gpt-demo", "--run-dir", "run", *settings(dataset, **ranks))
    assert outcome.code == 0, outcome.stderr
    rows = [row for row in surviving_rows(tmp_path / "run") if row["kind"] == "tasks"]
    assert [row["step"] for row in rows] == [2, 4]
    again = seedbed_cli("eval", "run", "--tasks", "cloze", "--limit", "8", "--json")
    assert again.code == 0, again.stderr
    result = json.loads(again.stdout)["tasks"]["cloze"]
    kept = sorted((tmp_path / "run" / "evals").glob("cloze-step-*.json"))
    assert len(kept) == 2
    last = json.loads(kept[-1].read_text())
    assert (last["step"], last["items"]) == (4, result["items"])
    assert rows[-1]["cloze"] == result["value"]
    assert rows[-1]["cloze_low"] == pytest.approx(result["low"], abs=1e-4)


def test_a_task_that_cannot_be_asked_ends_a_run_before_it_begins(seedbed_cli, tmp_path, dataset):
    sets = settings(dataset, **{"eval.tasks": '["clozes"]'})
    outcome = seedbed_cli("train", "gpt-demo", "--run-dir", "run", *sets)
    assert (outcome.code, "no task 'clozes'" in outcome.stderr) == (2, True)
    two = {"data.path": "", "data.paths": f'{{a="{dataset}", b="{dataset}"}}'}
    for more, words in (
        ({"eval.every_steps": 0}, "eval.every_steps"),
        ({"eval.tasks": '["bits-per-byte"]'}, "no items to ask"),
        (two, "held-out texts of one dataset"),
    ):
        sets = settings(dataset, **{"eval.tasks": '["cloze"]', **more})
        with pytest.raises(SeedbedError, match=words):
            start("gpt-demo", sets[1::2], tmp_path / "run")
    assert not (tmp_path / "run").exists()
