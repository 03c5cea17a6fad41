"""`seedbed eval --perturb` and `--contamination`, on a model with its initial weights."""

import json
from pathlib import Path

import pytest

from evals.report import write_report
from tests.integration.test_evaluate import build, save_checkpoint, write_texts

TASK = """
description = "Which word comes next."
kind = "multiple-choice"
[items]
format = "hellaswag"
path = "items.jsonl"
[prompt]
context = "{context}"
answer = " {choice}"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A run, and a task of which every third item stands in the training text."""
    folder = tmp_path_factory.mktemp("probes")
    dataset = build(write_texts(folder / "texts"), folder / "dataset", near_duplicate_threshold=0)
    save_checkpoint(folder / "run", dataset, 1)
    from evals.items import split_texts

    documents = [text.decode().split() for text in split_texts(dataset, "train")]
    items = []
    for number in range(30):
        words = (
            documents[number][:20] if number % 3 == 0 else [f"item{number}word{place}" for place in range(20)]
        )
        row = {
            "ind": number,
            "ctx": " ".join(words),
            "endings": ["one", "two", "three", "four"],
            "label": number % 4,
        }
        items.append({**row, "activity_label": "x", "source_id": f"s~{number}"})
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    (folder / "words.toml").write_text(TASK)
    return folder


def evaluated(seedbed_cli, folder, *more):
    return seedbed_cli("eval", folder / "run", "--tasks", folder / "words.toml", *more)


def test_questions_are_asked_under_changes_and_looked_for_in_the_training_text(seedbed_cli, folder):
    outcome = evaluated(seedbed_cli, folder, "--perturb", "case,more_space", "--contamination", "--json")
    assert outcome.code == 0, outcome.stderr
    told = json.loads(outcome.stdout)["tasks"]["words"]
    found = told["robustness"]
    assert list(found["by_perturbation"]) == ["upper_case", "lower_case", "mixed_case", "more_space"]
    assert found["clean"]["value"] == told["value"]
    assert found["worst"]["value"] <= min(one["after"]["value"] for one in found["by_perturbation"].values())
    # Texts that are in lower case already are the same questions.
    assert found["by_perturbation"]["lower_case"]["difference"]["value"] == 0
    assert found["by_perturbation"]["lower_case"]["verdict"] == "tied"
    seen = told["contamination"]
    assert seen["counts"] == {"clean": 20, "overlaps": 10, "too short": 0}
    assert seen["all"]["value"] == told["value"]
    shown = evaluated(seedbed_cli, folder, "--perturb", "upper_case", "--contamination").stdout
    assert "under changes" in shown
    assert "20 clean, 10 overlaps" in shown
    page = write_report(folder / "run").read_text()
    assert "words: accuracy under changes" in page
    assert "Items: 20 clean, 10 overlaps, 0 too short." in page


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--perturb", "tpyos"), "typos"),
        (("--tasks", "bits-per-byte", "--perturb", "typos"), "no items to perturb"),
        (("--tasks", "stdlib-text", "--perturb", "typos"), "scores whole texts"),
    ],
)
def test_what_cannot_be_perturbed_is_said(seedbed_cli, folder, more, words):
    outcome = evaluated(seedbed_cli, folder, *more)
    assert outcome.code == 2
    assert words in outcome.stderr


@pytest.mark.long
def test_a_model_that_is_spread_over_host_and_disk_scores_the_same(seedbed_cli, folder):
    whole, spread = (
        json.loads(evaluated(seedbed_cli, folder, "--json", *more).stdout)["tasks"]["words"]
        for more in ((), ("--memory", "cpu=1KB"))
    )
    for name, found in whole["metrics"].items():
        assert spread["metrics"][name]["value"] == pytest.approx(found["value"], abs=1e-5)
    for memory, words in (
        ("0=20GB", "there is no GPU 0"),
        ("cpu=1GB,cpu=2GB", "twice"),
        ("cpu=1", "no place"),
    ):
        outcome = evaluated(seedbed_cli, folder, "--memory", memory)
        assert (outcome.code, words in outcome.stderr) == (2, True), outcome.stderr


def test_items_of_sources_that_were_not_trained_on_are_told_apart(seedbed_cli, folder, tmp_path):
    """Of texts in two folders that the run knows, and one that it does not."""
    for number, name in enumerate(("alpha", "beta", "law") * 6):
        path = tmp_path / "texts" / name / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(" ".join(f"word{number * 7 + place * place}" for place in range(120)))
    asked = ("--tasks", "cloze", "--data", tmp_path / "texts", "--unseen")
    outcome = seedbed_cli("eval", folder / "run", *asked, "--json")
    assert outcome.code == 0, outcome.stderr
    found = json.loads(outcome.stdout)["tasks"]["cloze"]["distribution"]
    assert 0 < found["share_outside"] < 1
    gap = found["outside"]["value"] - found["inside"]["value"]
    assert found["difference"]["value"] == pytest.approx(gap)
    known = evaluated(seedbed_cli, folder, "--unseen")
    assert "is of a source that training has seen" in known.stdout
